//! Kafka: a relay publishes a service's own log, and a consumer reads the events of another service.

mod connection;
mod consumer;
mod mock;
mod relay;

use std::convert::Infallible;

use chassis::events::consumer::Inbox;
use chassis::events::{Broker, Brokers, Outbox, Wakeups};

pub use consumer::consume;
pub use mock::MockCluster;
pub use relay::relay;

/// A Kafka cluster that carries events.
#[derive(Debug, Clone)]
pub struct Cluster(Brokers);

impl Cluster {
    /// The cluster that these brokers belong to.
    pub fn new(brokers: Brokers) -> Self {
        Self(brokers)
    }
}

impl Broker for Cluster {
    async fn publish<O: Outbox>(
        &self,
        topic: &'static str,
        source: &'static str,
        outbox: &O,
        wakeups: &Wakeups,
    ) -> Infallible {
        relay(&self.0, topic, source, outbox, wakeups).await
    }

    async fn consume<I: Inbox>(&self, group: &str, topic: &'static str, inbox: &I) -> Infallible {
        consume(&self.0, group, topic, inbox).await
    }
}
