//! The users service: config → telemetry → database → router → serve.

use std::process::ExitCode;

use chassis::{config, metrics, serve, telemetry};
use shared_db::{Database, Settings};
use users::{App, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = match config::load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    telemetry::init(&config.log);
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(config::EXIT_CONFIG)
        }
    }
}

/// Runs the service until it is told to stop.
async fn run(config: Config) -> Result<(), String> {
    let database = Database::new(&config.users_database_url, &Settings::new("users", config.database_max_connections))
        .map_err(|error| format!("USERS_DATABASE_URL {error}"))?;
    let app = App::new(database, config.open_orders());
    let stop = serve::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    let listener = serve::bind(config.users_addr, "USERS_ADDR").await?;
    let grpc_listener = serve::bind(config.users_grpc_addr, "USERS_GRPC_ADDR").await?;
    tracing::info!(address = %config.users_addr, grpc.address = %config.users_grpc_addr, "users is listening");

    tokio::spawn(metrics::upkeep());
    tokio::spawn(shared_db::report_until_ready(app.database.clone()));
    tokio::spawn(users::watch_event_log(app.clone()));
    let wakeups = app.wakeups.clone();
    let grpc = chassis::grpc::serve(grpc_listener, users::grpc::routes(app.clone()).await, stop.clone());
    let http = serve::serve(listener, users::router(app), stop, || wakeups.close());
    let (grpc, ()) = tokio::join!(grpc, http);
    grpc.map_err(|error| format!("gRPC cannot be served any more: {error}"))
}
