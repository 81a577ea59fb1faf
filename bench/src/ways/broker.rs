//! A Kafka broker: librdkafka's mock cluster in this process, or the one that `TEST_KAFKA_BROKERS` names.

use anyhow::{Context, Result};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// A broker with the services' topics.
pub struct Broker {
    address: String,
    _mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Broker {
    /// Starts the mock cluster, or takes the named broker.
    pub fn start() -> Result<Self> {
        if let Ok(address) = std::env::var("TEST_KAFKA_BROKERS") {
            return Ok(Self { address, _mock: None });
        }
        let mock = MockCluster::new(1).context("the mock cluster cannot be started")?;
        for topic in ["users", "orders"] {
            mock.create_topic(topic, 3, 1)?;
        }
        Ok(Self { address: mock.bootstrap_servers(), _mock: Some(mock) })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}
