//! The users service: config → telemetry → database → router → serve.

use std::process::ExitCode;

use chassis::http::serve;
use chassis::{config, metrics, telemetry};
use shared_db::Settings;
use users::open_orders::replica;
use users::{App, Command, Config, events};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = match config::load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    telemetry::init(&config.options.log);
    config::exit_code(match config.command {
        Some(Command::Replica(command)) => run_on_replica(&config, command).await,
        None => serve(config).await,
    })
}

fn app(config: &Config) -> Result<App, String> {
    let database = config.database(&Settings::new("users", config.options.database_max_connections))?;
    Ok(App::new(database, config.open_orders()?))
}

async fn run_on_replica(config: &Config, command: replica::Command) -> Result<ExitCode, String> {
    replica::run(app(config)?, &config.orders_feed(), command).await
}

/// Runs the service until a stop signal.
async fn serve(config: Config) -> Result<ExitCode, String> {
    let app = app(&config)?;
    let events = config.options.events.events();
    #[cfg(feature = "kafka")]
    let events = events.with_kafka(broker::kafka::Cluster::new);
    let (transport, broker) = events.resolve()?;
    let stop = serve::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    let listener = serve::bind(config.users_addr, "USERS_ADDR").await?;
    let grpc_listener = serve::bind(config.users_grpc_addr, "USERS_GRPC_ADDR").await?;
    tracing::info!(address = %config.users_addr, grpc.address = %config.users_grpc_addr, "users is listening");

    tokio::spawn(metrics::upkeep());
    tokio::spawn(shared_db::report_until_ready(app.database.clone()));
    tokio::spawn(shared_db::stay_warm(app.database.clone()));
    tokio::spawn(chassis::events::watch(app.clone()));
    if let Some(transport) = transport {
        tokio::spawn(replica::follow(app.clone(), config.orders_feed(), transport));
    }
    if let Some(broker) = broker {
        tokio::spawn(events::publish(app.clone(), broker));
    }
    let wakeups = app.wakeups.clone();
    let grpc = chassis::grpc::serve(grpc_listener, users::grpc::routes(app.clone()).await, stop.clone());
    let http = serve::serve(listener, users::router(app), stop, || wakeups.close());
    let (grpc, ()) = tokio::join!(grpc, http);
    grpc.map_err(|error| format!("gRPC cannot be served any more: {error}"))?;
    Ok(ExitCode::SUCCESS)
}
