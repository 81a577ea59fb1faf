//! The orders service: config → telemetry → database → router → serve.

use std::process::ExitCode;

use chassis::http::serve;
use chassis::{config, metrics, telemetry};
use orders::customers::replica;
use orders::{App, Command, Config, events, rebuild};
use shared_db::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = match config::load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    telemetry::init(&config.options.log);
    config::exit_code(match &config.command {
        Some(Command::Rebuild(options)) => rebuild(&config, options).await,
        Some(Command::Replica(command)) => run_on_replica(&config, *command).await,
        None => serve(config).await,
    })
}

fn app(config: &Config) -> Result<App, String> {
    let database = config.database(&Settings::new("orders", config.options.database_max_connections))?;
    Ok(App::new(database, config.customers()?))
}

async fn rebuild(config: &Config, options: &rebuild::Options) -> Result<ExitCode, String> {
    rebuild::run(&config.database(&Settings::new("orders rebuild", 1))?, options).await
}

async fn run_on_replica(config: &Config, command: replica::Command) -> Result<ExitCode, String> {
    replica::run(app(config)?, &config.users_feed(), command).await
}

/// Runs the service until a stop signal.
async fn serve(config: Config) -> Result<ExitCode, String> {
    let app = app(&config)?;
    let events = config.options.events.events();
    #[cfg(feature = "kafka")]
    let events = events.with_kafka(broker::kafka::Cluster::new);
    let (transport, broker) = events.resolve()?;
    let stop = serve::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    let listener = serve::bind(config.orders_addr, "ORDERS_ADDR").await?;
    tracing::info!(address = %config.orders_addr, "orders is listening");

    tokio::spawn(metrics::upkeep());
    tokio::spawn(shared_db::report_until_ready(app.database.clone()));
    tokio::spawn(shared_db::stay_warm(app.database.clone()));
    tokio::spawn(chassis::events::watch(app.clone()));
    if let Some(transport) = transport {
        tokio::spawn(replica::follow(app.clone(), config.users_feed(), transport));
    }
    if let Some(broker) = broker {
        tokio::spawn(events::publish(app.clone(), broker));
    }
    let wakeups = app.wakeups.clone();
    serve::serve(listener, orders::router(app), stop, || wakeups.close()).await;
    Ok(ExitCode::SUCCESS)
}
