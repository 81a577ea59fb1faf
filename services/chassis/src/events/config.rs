//! The variables of events.

use clap::{Args, ValueEnum};

use super::broker::{Broker, Either, NoBroker, Transport};
use super::kafka::{KafkaConfig, KafkaSettings};
use super::rabbitmq::{RabbitmqConfig, RabbitmqSettings};

/// The dial `EVENTS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// Not at all.
    Off,
    /// By the other service's HTTP feed.
    Feed,
    /// From a Kafka broker, to which the other service publishes them.
    Kafka,
    /// From a RabbitMQ server, to which the other service publishes them.
    Rabbitmq,
}

/// The variables of events.
#[derive(Debug, Clone, Args)]
pub struct EventsConfig {
    /// where the other service's events are read; they keep the replica of its data up to date
    #[arg(long, env = "EVENTS_VIA", default_value = "off")]
    events_via: Via,
    #[command(flatten)]
    kafka: KafkaConfig,
    #[command(flatten)]
    rabbitmq: RabbitmqConfig,
}

impl EventsConfig {
    /// What the variables say of Kafka; `None` if they name no broker.
    pub fn kafka(&self) -> Option<KafkaSettings> {
        self.kafka.settings()
    }

    /// What the variables ask for.
    ///
    /// # Errors
    /// If two variables contradict each other.
    pub fn events(&self) -> Result<Events<NoBroker, NoBroker>, String> {
        Ok(Events::new(self.events_via, self.kafka(), self.rabbitmq.settings()?))
    }
}

/// What the variables ask for, and the brokers that this build offers. It offers none until [`Events::with_kafka`] and
/// [`Events::with_rabbitmq`].
pub struct Events<K, R> {
    via: Via,
    kafka: Carrier<KafkaSettings, K>,
    rabbitmq: Carrier<RabbitmqSettings, R>,
}

/// A kind of broker: what the variables say of it, and what makes a client of it in this build.
struct Carrier<S, B> {
    asked: Option<S>,
    connect: Option<Connect<S, B>>,
}

type Connect<S, B> = fn(S) -> Result<B, String>;

/// What carries the other service's events, and the brokers that this service publishes to.
pub type Resolved<K, R> = (Option<Transport<Either<K, R>>>, Vec<Either<K, R>>);

impl Events<NoBroker, NoBroker> {
    /// In a build without a broker.
    pub fn new(via: Via, kafka: Option<KafkaSettings>, rabbitmq: Option<RabbitmqSettings>) -> Self {
        let (kafka, rabbitmq) = (Carrier { asked: kafka, connect: None }, Carrier { asked: rabbitmq, connect: None });
        Self { via, kafka, rabbitmq }
    }
}

impl<K: Broker, R: Broker> Events<K, R> {
    /// In a build with Kafka: `connect` makes a client of a cluster.
    pub fn with_kafka<B: Broker>(self, connect: Connect<KafkaSettings, B>) -> Events<B, R> {
        let kafka = Carrier { asked: self.kafka.asked, connect: Some(connect) };
        Events { via: self.via, kafka, rabbitmq: self.rabbitmq }
    }

    /// In a build with RabbitMQ: `connect` makes a client of a server.
    pub fn with_rabbitmq<B: Broker>(self, connect: Connect<RabbitmqSettings, B>) -> Events<K, B> {
        let rabbitmq = Carrier { asked: self.rabbitmq.asked, connect: Some(connect) };
        Events { via: self.via, kafka: self.kafka, rabbitmq }
    }

    /// What carries the other service's events here, if they are read, and the brokers to publish to.
    ///
    /// # Errors
    /// If a variable lacks another one, or asks for a broker in a build without it.
    pub fn resolve(self) -> Result<Resolved<K, R>, String> {
        let kafka = self.kafka.resolve(self.via == Via::Kafka, "Kafka", "kafka", "KAFKA_BROKERS")?.map(Either::First);
        let rabbitmq = self.rabbitmq.resolve(self.via == Via::Rabbitmq, "RabbitMQ", "rabbitmq", "RABBITMQ_URL")?;
        let rabbitmq = rabbitmq.map(Either::Second);
        let transport = match self.via {
            Via::Off => None,
            Via::Feed => Some(Transport::Feed),
            Via::Kafka => kafka.clone().map(Transport::Broker),
            Via::Rabbitmq => rabbitmq.clone().map(Transport::Broker),
        };
        Ok((transport, kafka.into_iter().chain(rabbitmq).collect()))
    }
}

impl<S, B> Carrier<S, B> {
    /// A client, if the variables name a broker. `is_read` says that the other service's events are read from there.
    fn resolve(self, is_read: bool, name: &str, feature: &str, variable: &str) -> Result<Option<B>, String> {
        match (self.asked, self.connect) {
            (None, _) if !is_read => Ok(None),
            (asked, None) => {
                let asking = if asked.is_some() && !is_read { variable } else { "EVENTS_VIA" };
                Err(format!(
                    "{asking} asks for {name}, but this program was built without it: build with `--features {feature}`"
                ))
            }
            (None, Some(_)) => Err(format!("{variable} is not set: with EVENTS_VIA={feature}, events are read from there")),
            (Some(settings), Some(connect)) => connect(settings).map(Some),
        }
    }
}
