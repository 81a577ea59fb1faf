//! The users service: config → telemetry → database → router → serve.

use std::process::ExitCode;

use chassis::events::TopicCommand;
use chassis::events::archive;
use chassis::http::serve;
use chassis::telemetry::LogLevel;
use chassis::{healthcheck, operators, program};
use shared_db::Settings;
use users::open_orders::replica;
use users::{App, Command, Config, events};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::run(|config: &Config| &config.options, run)
}

async fn run(config: Config, level: Option<LogLevel>) -> Result<ExitCode, String> {
    match &config.command {
        Some(Command::Replica(command)) => run_on_replica(&config, *command).await,
        Some(Command::Events(command)) => run_on_events(&config, command).await,
        Some(Command::Topic(command)) => run_on_topic(&config, command).await,
        Some(Command::Health(options)) => healthcheck::run(options, config.users_addr, &config.options.tls).await,
        None => Box::pin(serve(config, level)).await,
    }
}

async fn run_on_replica(config: &Config, command: replica::Command) -> Result<ExitCode, String> {
    replica::run(config.app()?, &config.orders_feed()?, command).await
}

async fn run_on_events(config: &Config, command: &archive::Command) -> Result<ExitCode, String> {
    let database = config.database(&Settings::new("users events", 1).for_a_command())?;
    archive::run(&App::new(database, config.open_orders()?), command).await
}

#[cfg(not(feature = "kafka"))]
async fn run_on_topic(_: &Config, _: &TopicCommand) -> Result<ExitCode, String> {
    Err("this program was built without Kafka: build with `--features kafka`".to_owned())
}

#[cfg(feature = "kafka")]
async fn run_on_topic(config: &Config, command: &TopicCommand) -> Result<ExitCode, String> {
    let settings = config.options.events.kafka().ok_or("KAFKA_BROKERS is not set: it names the cluster with the topic")?;
    broker::kafka::Cluster::open(settings)?.run("users", command).await.map(|()| ExitCode::SUCCESS)
}

/// Runs the service until a stop signal.
async fn serve(config: Config, level: Option<LogLevel>) -> Result<ExitCode, String> {
    let _traces = config.options.begin_traces::<Config>()?;
    let addresses = [("USERS_ADDR", config.users_addr), ("USERS_GRPC_ADDR", config.users_grpc_addr)];
    let signal = serve::stop_signal()?;
    let opening = async {
        let app = config.app()?.for_callers(config.options.auth.open(&addresses, config.options.admin_addr).await?);
        app.database.check_pooler().await.map_err(|error| format!("USERS_DATABASE_URL {error}"))?;
        Ok::<_, String>(app)
    };
    let Some(app) = serve::unless_stopped(signal.clone(), opening).await.transpose()? else {
        tracing::info!("stopping before the service listens");
        return Ok(ExitCode::SUCCESS);
    };
    let events = config.options.events.events()?;
    #[cfg(feature = "kafka")]
    let events = events.with_kafka(broker::kafka::Cluster::open);
    #[cfg(feature = "rabbitmq")]
    let events = events.with_rabbitmq(broker::rabbitmq::Server::new);
    let (transport, brokers) = events.resolve()?;
    let stop = app.health.stopping(signal, config.options.shutdown_delay);
    let tls = config.options.tls.serving()?;
    let listener = serve::bind(config.users_addr, "USERS_ADDR", tls.clone()).await?;
    let grpc_listener = serve::bind(config.users_grpc_addr, "USERS_GRPC_ADDR", tls.clone()).await?;
    let admin_listener = serve::bind_admin(config.options.admin_addr, tls).await?;
    tracing::info!(address = %config.users_addr, grpc.address = %config.users_grpc_addr, "users is listening");

    app.watch();
    if let Some(transport) = transport {
        tokio::spawn(replica::follow(app.clone(), config.orders_feed()?, transport));
    }
    if !brokers.is_empty() {
        tokio::spawn(events::publish(app.clone(), brokers));
    }
    let (limits, wakeups) = (&config.options.limits, app.wakeups.at_most(config.options.limits.max_long_polls));
    let (health, auth, serves) = (app.health.clone(), app.auth.clone(), app.interfaces(level).await);
    let grpc = chassis::grpc::serve_within(limits, grpc_listener, serves.grpc, stop.clone());
    let admin = operators::serve(limits, admin_listener.zip(serves.operators), stop.clone());
    let router = config.options.cors.allow(serves.http);
    let http = serve::serve_within(limits, auth, listener, router, stop, || wakeups.close());
    let served = async {
        let (grpc, admin, ()) = tokio::join!(Box::pin(grpc), Box::pin(admin), Box::pin(http));
        grpc.and(admin)
    };
    Box::pin(health.serving(config.options.startup_timeout, served)).await
}
