//! The brokers of the measurement, and Kafka's own producer as the peer of the relay.

#[cfg(feature = "kafka")]
mod kafka;

use anyhow::Result;
use bench::Options;
use dev::rabbitmq::Server;

#[cfg(feature = "kafka")]
pub use kafka::Kafka;

#[cfg(not(feature = "kafka"))]
pub use without::Kafka;

/// What carries events, beside the feed.
pub struct Brokers {
    pub kafka: Option<Kafka>,
    pub rabbitmq: Option<Server>,
}

impl Brokers {
    /// Starts what the options ask for.
    pub fn start(options: &Options) -> Result<Self> {
        let kafka = if options.kafka { Some(Kafka::start()?) } else { None };
        let rabbitmq = if options.rabbitmq { Some(Server::start()?) } else { None };
        Ok(Self { kafka, rabbitmq })
    }
}

#[cfg(not(feature = "kafka"))]
mod without {
    use anyhow::{Result, bail};

    /// A build without the feature has none.
    pub enum Kafka {}

    impl Kafka {
        pub fn start() -> Result<Self> {
            bail!("--kafka: this program was built without the feature bench/kafka")
        }

        pub fn variables(&self) -> [(&'static str, String); 2] {
            match *self {}
        }

        pub fn name(&self) -> &'static str {
            match *self {}
        }

        pub fn produce(&self, _: u64, _: u64) -> Result<Option<f64>> {
            match *self {}
        }
    }
}
