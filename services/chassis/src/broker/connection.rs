//! What relay and consumer share: how the cluster is reached, what is said of it in the log, and how a client ends.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::Brokers;

/// Pauses after a failure: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// The pauses after failures that follow each other.
pub(super) struct Pauses(ExponentialBackoff);

impl Default for Pauses {
    fn default() -> Self {
        let [first, longest] = PAUSES;
        let pauses =
            ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times().with_jitter();
        Self(pauses.build())
    }
}

impl Pauses {
    /// The next one.
    pub(super) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(PAUSES[1])
    }
}

/// What hinders the events of a topic, said once as long as it lasts.
#[derive(Debug)]
pub(super) struct Trouble {
    topic: &'static str,
    /// What does not happen to the events: they are not `done`.
    done: &'static str,
    /// All of it, not only the last: a cluster that is down is noticed in several ways, which take turns.
    said: Mutex<BTreeSet<String>>,
}

impl Trouble {
    /// The events of `topic` are not `done`.
    pub(super) fn new(topic: &'static str, done: &'static str) -> Arc<Self> {
        Arc::new(Self { topic, done, said: Mutex::default() })
    }

    /// Says this error, if it has not been said since the trouble began.
    pub(super) fn say(&self, error: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&error) {
            tracing::warn!(topic = self.topic, error, "events are not {} at this moment", self.done);
            said.insert(error);
        }
    }

    /// Says that the trouble is over, if there was any.
    pub(super) fn over(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_empty() {
            tracing::info!(topic = self.topic, "events are {} again", self.done);
            said.clear();
        }
    }
}

/// Takes what librdkafka has to say.
pub(super) struct Listener(pub(super) Arc<Trouble>);

impl ClientContext for Listener {
    /// Its log repeats itself for as long as a broker is away.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(topic = self.0.topic, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // One of several, or an idle connection that was closed: librdkafka connects again by itself.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => {
                tracing::debug!(topic = self.0.topic, reason, "a broker's connection ended");
            }
            _ => self.0.say(error.to_string()),
        }
    }
}

impl ConsumerContext for Listener {
    /// A place that is not committed is committed with the next batch, or its events come again.
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(topic = self.0.topic, %error, "a place in the topic was not committed");
        }
    }
}

/// How every client reaches the cluster.
pub(super) fn config(brokers: &Brokers) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.to_string());
    // As long as the longest pause after any other failure, and not ten seconds.
    config.set("reconnect.backoff.max.ms", PAUSES[1].as_millis().to_string());
    config
}

/// A client of the cluster. It ends on a thread of its own: that takes until the client's threads have ended and a consumer
/// has left its group, which it never has if the cluster is away; and whoever drops a future cannot wait so long.
pub(super) struct Client<T: Send + 'static> {
    client: Option<T>,
    patience: Duration,
}

impl<T: Send + 'static> Client<T> {
    /// One whose end nobody waits for.
    pub(super) fn new(client: T) -> Self {
        Self { client: Some(client), patience: Duration::ZERO }
    }

    /// One that has something to do in the end, for which this is patience enough.
    pub(super) fn leaving_within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl<T: Send + 'static> Deref for Client<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.client.as_ref().expect("it is taken by drop alone")
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
            // Nothing is ever sent: the channel closes, or the time is over.
            let _ = end.recv_timeout(self.patience);
        }
    }
}
