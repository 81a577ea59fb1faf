//! Kafka: a relay publishes a service's own log, and a consumer reads the events of another service.

mod command;
mod connection;
mod consumer;
mod event;
mod member;
mod mock;
mod places;
mod relay;
mod settings;
mod topic;

use std::convert::Infallible;
use std::sync::Arc;

use chassis::events::consumer::Inbox;
use chassis::events::{Broker, Brokers, KafkaSettings, Outbox, TopicCommand, Wakeups};

pub use mock::MockCluster;
use settings::Settings;

/// A Kafka cluster that carries events.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Settings>);

impl Cluster {
    /// The cluster that these brokers belong to, used with the default settings.
    pub fn new(brokers: Brokers) -> Self {
        Self(Arc::new(Settings::new(brokers)))
    }

    /// The cluster that these settings name, with librdkafka's settings from the file and from variables `KAFKA_…`.
    ///
    /// # Errors
    /// The setting that is unknown, has a bad value, or would break a guarantee.
    pub fn open(settings: KafkaSettings) -> Result<Self, String> {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::with_variables(settings, variables)
    }

    /// The same, with these variables.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn with_variables(
        settings: KafkaSettings,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        Settings::read(settings, variables).map(|settings| Self(Arc::new(settings)))
    }

    /// Runs a command on the topic of `service`.
    ///
    /// # Errors
    /// Why the command failed.
    pub async fn run(&self, service: &'static str, command: &TopicCommand) -> Result<(), String> {
        command::run(&self.0, service, command).await
    }
}

impl Broker for Cluster {
    fn system(&self) -> &'static str {
        "kafka"
    }

    /// One relay of a log may run at a time.
    async fn publish<O: Outbox>(
        &self,
        topic: &'static str,
        source: &'static str,
        outbox: &O,
        wakeups: &Wakeups,
    ) -> Infallible {
        describe_metrics();
        relay::relay(&self.0, topic, source, outbox, wakeups).await
    }

    async fn consume<I: Inbox>(&self, group: &str, topic: &'static str, inbox: &I) -> Infallible {
        describe_metrics();
        consumer::consume(&self.0, group, topic, inbox).await
    }
}

/// Says what the metrics of the clients mean.
fn describe_metrics() {
    let behind = "How far the consumer is behind the end of the topic, in records.";
    metrics::describe_gauge!("kafka_lag_offsets", metrics::Unit::Count, behind);
    metrics::describe_gauge!("kafka_assigned_partitions", metrics::Unit::Count, "The partitions that the consumer reads.");
    let changed = "How often the partitions changed hands.";
    metrics::describe_counter!("kafka_rebalances_total", metrics::Unit::Count, changed);
    metrics::describe_counter!("kafka_errors_total", metrics::Unit::Count, "Errors of the Kafka clients, by error.");
    let last = "When each error of the Kafka clients was seen last, since 1970.";
    metrics::describe_gauge!("kafka_last_error_timestamp_seconds", metrics::Unit::Seconds, last);
}
