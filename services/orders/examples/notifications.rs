//! A consumer outside of the services: it follows the events of orders and prints a line for each. It knows the events, but
//! neither the database nor the service's code.
//!
//! Every event is printed at least once, even if this program is killed: the cursor behind it is stored after the line was
//! written. A program that sends mail instead would remember the ids of the last events and skip repetitions.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use chassis::config;
use chassis::events::consumer::{Feed, Inbox, Received};
use chassis::events::{Broker, Brokers, Events, Transport, Via};
use chassis::http::serve;
use chassis::remote::BaseUrl;
use chassis::telemetry::{self, LogConfig};
use chrono::SecondsFormat;
use clap::Parser;
use serde::Deserialize;
use tokio::sync::Notify;
use uuid::Uuid;

/// Prints a line for everything that happens to an order.
#[derive(Debug, Parser)]
#[command(name = "notifications")]
struct Options {
    /// where events are read: the service's HTTP feed, or the topic `orders` of a Kafka broker
    #[arg(long, env = "EVENTS_VIA", default_value = "feed")]
    events_via: Via,
    /// the URL of orders [default: `ORDERS_ADDR`]
    #[arg(long, env = "ORDERS_URL")]
    orders_url: Option<BaseUrl>,
    /// where orders serves HTTP
    #[arg(long, env = "ORDERS_ADDR", default_value = "127.0.0.1:8082", value_parser = config::socket_address)]
    orders_addr: std::net::SocketAddr,
    /// the file with the cursor of the feed; without the file, events are printed from the first one on
    #[arg(long, default_value = "notifications.cursor")]
    cursor_file: PathBuf,
    /// the Kafka brokers, which keep the position of the consumer group `notifications`
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    kafka_brokers: Brokers,
    #[command(flatten)]
    log: LogConfig,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options: Options = match config::load() {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    telemetry::init(&options.log);
    let brokers = (options.events_via == Via::Kafka).then(|| options.kafka_brokers.clone());
    let events = Events::new(options.events_via, brokers);
    #[cfg(feature = "kafka")]
    let events = events.with_kafka(broker::kafka::Cluster::new);
    let ended = match events.resolve() {
        Ok((Some(transport), _)) => run(options, transport).await,
        Ok((None, _)) => Err("EVENTS_VIA is `off`: set it to `feed` or `kafka`".to_owned()),
        Err(message) => Err(message),
    };
    config::exit_code(ended)
}

/// Prints events until a stop signal, or until nobody reads them.
async fn run(options: Options, transport: Transport<impl Broker>) -> Result<ExitCode, String> {
    let stop = serve::stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    let feed = Feed::new("orders", &options.orders_url.unwrap_or_else(|| options.orders_addr.into()));
    let lines = Lines::new(io::stdout(), options.cursor_file);
    tokio::select! {
        never = transport.follow(&feed, "notifications", &lines) => match never {},
        () = stop => {}
        () = lines.nobody_reads.notified() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The part of an order that this program prints.
#[derive(Deserialize)]
struct Order {
    id: Uuid,
    version: i64,
    total_minor: i64,
    currency: String,
}

/// A line for each event.
struct Lines<W> {
    out: Mutex<W>,
    cursor_file: PathBuf,
    nobody_reads: Notify,
}

impl<W: Write + Send> Inbox for Lines<W> {
    type Error = io::Error;

    async fn cursor(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.cursor_file) {
            Ok(cursor) => Ok(Some(cursor.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn apply(&self, events: &[Received], cursor: Option<&str>) -> io::Result<()> {
        let printed = self.print(events);
        if printed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.nobody_reads.notify_one();
        }
        printed?;
        cursor.map_or(Ok(()), |cursor| self.store(cursor))
    }
}

impl<W: Write> Lines<W> {
    fn new(out: W, cursor_file: PathBuf) -> Self {
        Self { out: Mutex::new(out), cursor_file, nobody_reads: Notify::new() }
    }

    fn print(&self, events: &[Received]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            // Later versions of the service may publish other types.
            if !(event.r#type.starts_with("order.") && event.r#type.ends_with(".v1")) {
                tracing::info!(event.id = event.id, event.r#type = event.r#type, "skipped");
                continue;
            }
            match event.read() {
                Ok(Order { id, version, total_minor, currency }) => {
                    let time = event.time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default();
                    let r#type = &event.r#type;
                    writeln!(out, "{time} {type} {id} version={version} total_minor={total_minor} {currency}")?;
                }
                Err(error) => tracing::error!(event.id = event.id, %error, "the event cannot be read and is skipped"),
            }
        }
        out.flush()
    }

    /// Replaces the file in one step, so that a crash leaves the old cursor or the new one.
    fn store(&self, cursor: &str) -> io::Result<()> {
        let mut name = self.cursor_file.clone().into_os_string();
        name.push(".new");
        let mut file = File::create(&name)?;
        writeln!(file, "{cursor}")?;
        file.sync_all()?;
        fs::rename(&name, &self.cursor_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(r#type: &str, data: &str) -> Received {
        let time = chrono::DateTime::from_timestamp_millis(1_700_000_000_250);
        Received { id: "1/1".into(), r#type: r#type.into(), time, data: data.into() }
    }

    const ORDER: &str = r#"{
        "id": "0198c0de-0000-7000-8000-000000000000", "user_id": "0198c0de-0000-7000-8000-000000000001",
        "status": "paid", "currency": "EUR", "items": [], "total_minor": 700, "version": 2
    }"#;

    #[tokio::test]
    async fn an_event_is_a_line_and_the_place_behind_it_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = Lines::new(Vec::new(), folder.path().join("cursor"));
        assert_eq!(lines.cursor().await.expect("read"), None);
        for cursor in ["a", "b"] {
            lines.apply(&[event("order.paid.v1", ORDER)], Some(cursor)).await.expect("printed");
            assert_eq!(lines.cursor().await.expect("read").as_deref(), Some(cursor));
        }
        let line =
            "2023-11-14T22:13:20.250Z order.paid.v1 0198c0de-0000-7000-8000-000000000000 version=2 total_minor=700 EUR\n";
        assert_eq!(String::from_utf8_lossy(&lines.out.into_inner().expect("whole")), line.repeat(2));
    }

    #[tokio::test]
    async fn an_event_that_is_none_of_an_order_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = Lines::new(Vec::new(), folder.path().join("cursor"));
        let foreign = [event("", "\u{fffd}"), event("order.paid.v1", "{}"), event("user.registered.v1", "{}")];
        lines.apply(&foreign, Some("a")).await.expect("skipped");
        assert_eq!(lines.cursor().await.expect("read").as_deref(), Some("a"));
        assert!(lines.out.into_inner().expect("whole").is_empty());
    }

    #[tokio::test]
    async fn a_line_that_could_not_be_written_leaves_the_place_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut nowhere = [0; 8];
        let lines = Lines::new(&mut nowhere[..], folder.path().join("cursor"));
        lines.apply(&[event("order.paid.v1", ORDER)], Some("a")).await.expect_err("it does not fit");
        assert_eq!(lines.cursor().await.expect("read"), None);
    }
}
