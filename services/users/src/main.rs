//! The users service: config → telemetry → database → router → serve.

use std::process::ExitCode;

use chassis::events::consumer::Source;
use chassis::http::serve;
use chassis::{config, metrics, telemetry};
use shared_db::Settings;
use users::open_orders::replica;
use users::{App, Command, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = match config::load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    telemetry::init(&config.log);
    let done = match config.command {
        Some(Command::Replica(command)) => tend_replica(&config, command).await,
        None => serve(config).await.map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::from(config::EXIT_CONFIG)
    })
}

fn app(config: &Config) -> Result<App, String> {
    let database = config.database(&Settings::new("users", config.database_max_connections))?;
    Ok(App::new(database, config.open_orders()?))
}

async fn tend_replica(config: &Config, command: replica::Command) -> Result<ExitCode, String> {
    replica::run(app(config)?.database, &config.orders_feed(), command).await
}

/// Runs the service until it is told to stop.
async fn serve(config: Config) -> Result<(), String> {
    let app = app(&config)?;
    let events = config.events.events()?;
    let stop = serve::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    let listener = serve::bind(config.users_addr, "USERS_ADDR").await?;
    let grpc_listener = serve::bind(config.users_grpc_addr, "USERS_GRPC_ADDR").await?;
    tracing::info!(address = %config.users_addr, grpc.address = %config.users_grpc_addr, "users is listening");

    tokio::spawn(metrics::upkeep());
    tokio::spawn(shared_db::report_until_ready(app.database.clone()));
    tokio::spawn(shared_db::stay_warm(app.database.clone()));
    tokio::spawn(users::watch_event_log(app.clone()));
    if !matches!(events.read, Source::Off) {
        tokio::spawn(replica::follow(app.database.clone(), config.orders_feed(), events.read));
    }
    #[cfg(feature = "kafka")]
    if let Some(brokers) = events.publish {
        tokio::spawn(users::outbox::publish(app.clone(), brokers));
    }
    let wakeups = app.wakeups.clone();
    let grpc = chassis::grpc::serve(grpc_listener, users::grpc::routes(app.clone()).await, stop.clone());
    let http = serve::serve(listener, users::router(app), stop, || wakeups.close());
    let (grpc, ()) = tokio::join!(grpc, http);
    grpc.map_err(|error| format!("gRPC cannot be served any more: {error}"))
}
