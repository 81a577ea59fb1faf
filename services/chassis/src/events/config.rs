//! The variables of events.

use clap::{Args, ValueEnum};

use super::broker::{Broker, Brokers, NoBroker, Transport};

/// The dial `EVENTS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// Not at all.
    Off,
    /// By the other service's HTTP feed.
    Feed,
    /// From a Kafka broker, to which the other service publishes them.
    Kafka,
}

/// The variables of events.
#[derive(Debug, Clone, Args)]
pub struct EventsConfig {
    /// where the other service's events are read; they keep the replica of its data up to date
    #[arg(long, env = "EVENTS_VIA", default_value = "off")]
    events_via: Via,
    /// the Kafka brokers that this service publishes its events to, and with `EVENTS_VIA=kafka` reads the other's from
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<Brokers>,
}

impl EventsConfig {
    /// What the variables ask for.
    pub fn events(&self) -> Events<NoBroker> {
        Events::new(self.events_via, self.kafka_brokers.clone())
    }
}

/// What the variables ask for, and the broker that this build offers. It offers none until [`Events::with_kafka`].
#[derive(Debug, Clone)]
pub struct Events<B> {
    via: Via,
    kafka_brokers: Option<Brokers>,
    kafka: Option<fn(Brokers) -> B>,
}

impl Events<NoBroker> {
    /// In a build without a broker.
    pub fn new(via: Via, kafka_brokers: Option<Brokers>) -> Self {
        Self { via, kafka_brokers, kafka: None }
    }
}

impl<B: Broker> Events<B> {
    /// In a build with Kafka: `kafka` makes a client of a cluster.
    pub fn with_kafka<K: Broker>(self, kafka: fn(Brokers) -> K) -> Events<K> {
        Events { via: self.via, kafka_brokers: self.kafka_brokers, kafka: Some(kafka) }
    }

    /// What carries the other service's events here, if they are read, and the broker to publish to, if there is one.
    ///
    /// # Errors
    /// If a variable lacks another one, or asks for Kafka in a build without it.
    pub fn resolve(self) -> Result<(Option<Transport<B>>, Option<B>), String> {
        let without = |variable| {
            Err(format!("{variable} asks for Kafka, but this program was built without it: build with `--features kafka`"))
        };
        match (self.via, self.kafka, self.kafka_brokers) {
            (Via::Kafka, None, _) => without("EVENTS_VIA"),
            (_, None, Some(_)) => without("KAFKA_BROKERS"),
            (Via::Kafka, Some(_), None) => {
                Err("KAFKA_BROKERS is not set: with EVENTS_VIA=kafka, events are read from these brokers".to_owned())
            }
            (via, kafka, brokers) => {
                let broker = kafka.zip(brokers).map(|(kafka, brokers)| kafka(brokers));
                let transport = match via {
                    Via::Off => None,
                    Via::Feed => Some(Transport::Feed),
                    Via::Kafka => broker.clone().map(Transport::Broker),
                };
                Ok((transport, broker))
            }
        }
    }
}
