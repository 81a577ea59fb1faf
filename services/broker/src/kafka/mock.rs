//! A Kafka cluster for tests and the bench.

use chassis::events::Brokers;
use rdkafka::error::KafkaResult;
use rdkafka::producer::DefaultProducerContext;

/// librdkafka's own cluster, which speaks the protocol inside this process.
pub struct MockCluster(rdkafka::mocking::MockCluster<'static, DefaultProducerContext>);

impl MockCluster {
    /// Starts a cluster of one broker with these topics.
    ///
    /// # Errors
    /// If librdkafka cannot start it.
    pub fn start(topics: &[&str]) -> KafkaResult<Self> {
        let cluster = rdkafka::mocking::MockCluster::new(1)?;
        for topic in topics {
            cluster.create_topic(topic, 3, 1)?;
        }
        Ok(Self(cluster))
    }

    /// Its address.
    pub fn brokers(&self) -> Brokers {
        self.0.bootstrap_servers().parse().expect("librdkafka names its brokers as host:port")
    }
}
