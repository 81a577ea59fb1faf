//! A Kafka broker: librdkafka's mock cluster in this process, or the one that `TEST_KAFKA_BROKERS` names.

use anyhow::{Context, Result};
use broker::kafka::MockCluster;

/// A broker with the services' topics.
pub struct Broker {
    address: String,
    _mock: Option<MockCluster>,
}

impl Broker {
    /// Starts it.
    pub fn start() -> Result<Self> {
        if let Ok(address) = std::env::var("TEST_KAFKA_BROKERS") {
            return Ok(Self { address, _mock: None });
        }
        let mock = MockCluster::start(&["users", "orders"]).context("the mock cluster cannot be started")?;
        Ok(Self { address: mock.brokers().to_string(), _mock: Some(mock) })
    }

    /// Where it is reached.
    pub fn address(&self) -> &str {
        &self.address
    }
}
