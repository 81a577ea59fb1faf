//! The orders service: config → telemetry → database → router → serve.

use std::process::ExitCode;

use chassis::events::consumer::Source;
use chassis::http::serve;
use chassis::{config, metrics, telemetry};
use orders::customers::replica;
use orders::{App, Command, Config, rebuild};
use shared_db::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = match config::load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    telemetry::init(&config.log);
    let done = match &config.command {
        Some(Command::Rebuild(options)) => rebuild(&config, options).await,
        Some(Command::Replica(command)) => tend_replica(&config, *command).await,
        None => serve(config).await.map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::from(config::EXIT_CONFIG)
    })
}

fn app(config: &Config) -> Result<App, String> {
    let database = config.database(&Settings::new("orders", config.database_max_connections))?;
    Ok(App::new(database, config.customers()?))
}

async fn rebuild(config: &Config, options: &rebuild::Options) -> Result<ExitCode, String> {
    rebuild::run(&config.database(&Settings::new("orders rebuild", 1))?, options).await
}

async fn tend_replica(config: &Config, command: replica::Command) -> Result<ExitCode, String> {
    replica::run(app(config)?, &config.users_feed(), command).await
}

/// Runs the service until it is told to stop.
async fn serve(config: Config) -> Result<(), String> {
    let app = app(&config)?;
    let events = config.events.events()?;
    let stop = serve::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    let listener = serve::bind(config.orders_addr, "ORDERS_ADDR").await?;
    tracing::info!(address = %config.orders_addr, "orders is listening");

    tokio::spawn(metrics::upkeep());
    tokio::spawn(shared_db::report_until_ready(app.database.clone()));
    tokio::spawn(shared_db::stay_warm(app.database.clone()));
    tokio::spawn(orders::watch_event_log(app.clone()));
    if !matches!(events.read, Source::Off) {
        tokio::spawn(replica::follow(app.clone(), config.users_feed(), events.read));
    }
    #[cfg(feature = "kafka")]
    if let Some(brokers) = events.publish {
        tokio::spawn(orders::outbox::publish(app.clone(), brokers));
    }
    let wakeups = app.wakeups.clone();
    serve::serve(listener, orders::router(app), stop, || wakeups.close()).await;
    Ok(())
}
