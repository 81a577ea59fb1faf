//! What relay and consumer share: a client's configuration, its log, and its end.

use std::ops::Deref;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use chassis::events::{Brokers, Pauses, Trouble};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

/// Logs what librdkafka reports.
pub(super) struct Listener(pub(super) Arc<Trouble>);

impl ClientContext for Listener {
    /// At debug level: librdkafka repeats its lines for as long as a broker is away.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(topic = self.0.of(), facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // One broker of several, or an idle connection that was closed. librdkafka connects again by itself.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => {
                tracing::debug!(topic = self.0.of(), reason, "a broker's connection ended");
            }
            _ => self.0.report(error.to_string()),
        }
    }
}

impl ConsumerContext for Listener {
    /// The next batch commits this position too. If none follows, its events are consumed again.
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(topic = self.0.of(), %error, "a position in the topic was not committed");
        }
    }
}

/// The configuration of every client.
pub(super) fn config(brokers: &Brokers) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.to_string());
    // The same as after any other failure.
    config.set("reconnect.backoff.max.ms", Pauses::LONGEST.as_millis().to_string());
    config
}

/// A client of the cluster. Its drop runs on a thread of its own, because it blocks until the client's threads have ended
/// and a consumer has left its group. While the cluster is away, that takes for ever.
pub(super) struct Client<T: Send + 'static> {
    client: Option<T>,
    patience: Duration,
}

impl<T: Send + 'static> Client<T> {
    /// A client whose drop waits up to `patience` for the client's end.
    pub(super) fn new(client: T, patience: Duration) -> Self {
        Self { client: Some(client), patience }
    }
}

impl<T: Send + 'static> Deref for Client<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.client.as_ref().expect("only drop takes it")
    }
}

impl<T: Send + 'static> Drop for Client<T> {
    fn drop(&mut self) {
        let client = self.client.take();
        let (ended, end) = mpsc::channel::<()>();
        let ending = thread::Builder::new().name("kafka-end".to_owned()).spawn(move || {
            drop(client);
            drop(ended);
        });
        if ending.is_ok() {
            // Nothing is ever sent: the channel closes, or the time runs out.
            let _ = end.recv_timeout(self.patience);
        }
    }
}
