//! A third service, which neither users nor orders knows. It reads the events of orders by any of the three ways, and sends
//! a notification for each to a webhook. It uses no code of the services, only their contract: docs/events.md.
//!
//! An event and the place behind it are stored in one transaction, and sent from there. So the program can be killed
//! anywhere: nothing is missing, and what is repeated has the same idempotency key.

mod event;
mod feed;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod store;
mod webhook;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use reqwest::Url;

use store::Store;

/// The pause after events could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends a notification for everything that happens to an order.
#[derive(Debug, Parser)]
#[command(name = "notifications")]
struct Options {
    /// how events are read
    #[arg(long, env = "EVENTS_VIA", default_value = "feed", value_parser = ["feed", "kafka", "rabbitmq"])]
    via: String,
    /// where orders serves HTTP
    #[arg(long, env = "ORDERS_URL", default_value = "http://127.0.0.1:8082")]
    orders_url: Url,
    /// the Kafka brokers: `host:port`, separated by commas
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    kafka_brokers: String,
    /// what the names of the topics begin with
    #[arg(long, env = "KAFKA_TOPIC_PREFIX", default_value = "")]
    kafka_topic_prefix: String,
    /// the RabbitMQ server
    #[arg(long, env = "RABBITMQ_URL", default_value = "amqp://127.0.0.1:5672", hide_env_values = true)]
    rabbitmq_url: String,
    /// where notifications are sent by POST, with the event's id as `Idempotency-Key` [default: they are printed]
    #[arg(long, env = "NOTIFICATIONS_WEBHOOK", hide_env_values = true)]
    webhook: Option<Url>,
    /// the SQLite file with what was read and sent
    #[arg(long, env = "NOTIFICATIONS_FILE", default_value = "notifications.db")]
    file: PathBuf,
    /// first send again what is parked
    #[arg(long)]
    retry_parked: bool,
}

#[tokio::main]
async fn main() -> Result<Infallible> {
    let _ = dotenvy::dotenv();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    // reqwest is built without a default for its cryptography. The error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    let lock = File::create(options.file.with_extension("lock"))?;
    lock.try_lock().with_context(|| format!("another process uses {}", options.file.display()))?;
    let store = Store::open(&options.file)?;
    if options.retry_parked {
        eprintln!("{} notifications are sent again", store.retry_parked()?);
    }
    tokio::select! {
        ended = read(&options, &store) => ended,
        ended = webhook::send(&store, options.webhook.as_ref()) => ended,
    }
}

/// Reads events for ever, and starts again when a way fails.
async fn read(options: &Options, store: &Store) -> Result<Infallible> {
    loop {
        let ended = match &*options.via {
            "feed" => feed::read(&options.orders_url, store).await,
            #[cfg(feature = "kafka")]
            "kafka" => kafka::read(&options.kafka_brokers, &format!("{}orders", options.kafka_topic_prefix), store).await,
            #[cfg(feature = "rabbitmq")]
            "rabbitmq" => rabbitmq::read(&options.rabbitmq_url, store).await,
            other => bail!("this program was built without {other}: build with `--features notifications/{other}`"),
        };
        if let Err(error) = ended {
            tracing::warn!(error = format!("{error:#}"), "events cannot be read now");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
