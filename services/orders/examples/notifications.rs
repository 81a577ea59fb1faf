//! A third party that only listens: it follows what happens to orders and prints a line for each event. It knows the
//! events, and neither the database nor the code of the service.
//!
//! Every event is printed at least once, whenever this program is stopped: the place behind it is stored after the line
//! was written. A program that sends mail instead would remember the ids of the last events and pass over repetitions.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "kafka")]
use chassis::broker::{self, Brokers};
use chassis::consumer::{Feed, Inbox, Received};
use chassis::remote::BaseUrl;
use chassis::telemetry::{self, LogConfig};
use chassis::{config, serve};
use chrono::SecondsFormat;
use clap::{Parser, ValueEnum};
use serde::Deserialize;
use tokio::sync::Notify;
use uuid::Uuid;

/// Prints a line for everything that happens to an order.
#[derive(Debug, Parser)]
#[command(name = "notifications")]
struct Options {
    /// how events come: by HTTP, or by a broker, for which this is built with the feature `kafka`
    #[arg(long, env = "EVENTS_VIA", default_value = "feed")]
    events_via: Via,
    /// where orders is reached [default: `ORDERS_ADDR`]
    #[arg(long, env = "ORDERS_URL")]
    orders_url: Option<BaseUrl>,
    /// where orders serves HTTP
    #[arg(long, env = "ORDERS_ADDR", default_value = "127.0.0.1:8082", value_parser = config::socket_address)]
    orders_addr: std::net::SocketAddr,
    /// where the place in the feed is kept; without the file, events are printed from the first one on
    #[arg(long, default_value = "notifications.cursor")]
    cursor_file: PathBuf,
    /// where the Kafka cluster is reached
    #[cfg(feature = "kafka")]
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    kafka_brokers: Brokers,
    #[command(flatten)]
    log: LogConfig,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Via {
    /// The service's own feed; the place in it is kept in a file.
    Feed,
    /// The topic `orders`, as a member of the group `notifications`; the broker keeps the place.
    #[cfg(feature = "kafka")]
    Kafka,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options: Options = match config::load() {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    telemetry::init(&options.log);
    let stop = match serve::stop_signal() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("error: signals cannot be received: {error}");
            return ExitCode::from(config::EXIT_CONFIG);
        }
    };
    let lines = Lines { cursor_file: options.cursor_file.clone(), nobody_reads: Notify::new() };
    tokio::select! {
        never = follow(&options, &lines) => match never {},
        () = stop => {}
        () = lines.nobody_reads.notified() => {}
    }
    ExitCode::SUCCESS
}

async fn follow(options: &Options, lines: &Lines) -> Infallible {
    match options.events_via {
        Via::Feed => {
            let url = options.orders_url.clone().unwrap_or_else(|| options.orders_addr.into());
            Feed::new("orders", &url).follow(lines).await
        }
        #[cfg(feature = "kafka")]
        Via::Kafka => broker::consume(&options.kafka_brokers, "notifications", "orders", lines).await,
    }
}

/// What this program needs of an order.
#[derive(Deserialize)]
struct Order {
    id: Uuid,
    version: i64,
    total_minor: i64,
    currency: String,
}

/// Standard output, a line for each event.
struct Lines {
    cursor_file: PathBuf,
    nobody_reads: Notify,
}

impl Inbox for Lines {
    type Error = io::Error;

    async fn cursor(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.cursor_file) {
            Ok(cursor) => Ok(Some(cursor.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn apply(&self, events: &[Received], cursor: Option<&str>) -> io::Result<()> {
        let printed = print(events);
        if printed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.nobody_reads.notify_one();
        }
        printed?;
        cursor.map_or(Ok(()), |cursor| self.store(cursor))
    }
}

impl Lines {
    /// Replaces the file in one step: a crash leaves the old place or the new one, and never half of one.
    fn store(&self, cursor: &str) -> io::Result<()> {
        let mut name = self.cursor_file.clone().into_os_string();
        name.push(".new");
        let mut file = File::create(&name)?;
        writeln!(file, "{cursor}")?;
        file.sync_all()?;
        fs::rename(&name, &self.cursor_file)
    }
}

fn print(events: &[Received]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for event in events {
        // Others may come one day; they are not for this program.
        if !(event.r#type.starts_with("order.") && event.r#type.ends_with(".v1")) {
            tracing::info!(event.id = event.id, event.r#type = event.r#type, "passed over");
            continue;
        }
        match event.read() {
            Ok(Order { id, version, total_minor, currency }) => {
                let time = event.time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default();
                writeln!(out, "{time} {} {id} version={version} total_minor={total_minor} {currency}", event.r#type)?;
            }
            Err(error) => tracing::error!(event.id = event.id, %error, "this event cannot be read, and was passed over"),
        }
    }
    out.flush()
}
