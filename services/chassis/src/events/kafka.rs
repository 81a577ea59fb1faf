//! The variables of Kafka.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::broker::Brokers;

/// The variables of Kafka.
#[derive(Debug, Clone, Args)]
pub struct KafkaConfig {
    /// the Kafka brokers that this service publishes its events to, and with `EVENTS_VIA=kafka` reads the other's from
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<Brokers>,
    /// a file of librdkafka's settings, `name=value` a line; a variable sets one as well, such as `KAFKA_SECURITY_PROTOCOL`,
    /// and a variable with `_FILE` behind it names a file with the value, such as `KAFKA_SASL_PASSWORD_FILE`
    #[arg(long, env = "KAFKA_CONFIG_FILE")]
    kafka_config_file: Option<PathBuf>,
    /// a file with the token for the SASL mechanism OAUTHBEARER; it is read again before the token expires
    #[arg(long, env = "KAFKA_OAUTH_TOKEN_FILE")]
    kafka_oauth_token_file: Option<PathBuf>,
    /// what stands before the services' names in the names of the topics
    #[arg(long, env = "KAFKA_TOPIC_PREFIX", default_value = "", hide_default_value = true, value_parser = prefix)]
    kafka_topic_prefix: String,
    /// the partitions of a topic that the relay creates: so many members of a group can consume it at once
    #[arg(long, env = "KAFKA_TOPIC_PARTITIONS", default_value = "3", value_parser = clap::value_parser!(i32).range(1..))]
    kafka_topic_partitions: i32,
    /// the copies of a topic that the relay creates [default: the broker's]
    #[arg(long, env = "KAFKA_TOPIC_REPLICATION", value_parser = clap::value_parser!(i32).range(1..))]
    kafka_topic_replication: Option<i32>,
    /// how long an event stays in a topic that the relay creates, such as 30d [default: the broker's]
    #[arg(long, env = "KAFKA_TOPIC_RETENTION", value_parser = humantime::parse_duration)]
    kafka_topic_retention: Option<Duration>,
    /// the cleanup policy of a topic that the relay creates: `delete`, `compact` or `compact,delete` [default: the broker's]
    #[arg(long, env = "KAFKA_TOPIC_CLEANUP_POLICY", value_parser = ["delete", "compact", "compact,delete"])]
    kafka_topic_cleanup_policy: Option<String>,
}

/// What an operator does with the topic of a service.
#[derive(Debug, Clone, Subcommand)]
pub enum TopicCommand {
    /// Create the service's topic, as the variables `KAFKA_TOPIC_…` say, for a service that may not create it itself
    Create,
    /// Have the compacted topic forget what was published about these, once their last events are published
    Erase {
        /// the ids
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
}

/// A Kafka cluster, and how it is used.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Some of its brokers.
    pub brokers: Brokers,
    /// A file of settings for the client library.
    pub config_file: Option<PathBuf>,
    /// A file with the token by which this service is known.
    pub oauth_token_file: Option<PathBuf>,
    /// The services' topics.
    pub topics: Topics,
}

/// How the services' topics are called, and how they are made.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Stands before the service's name.
    pub prefix: String,
    /// The number of partitions.
    pub partitions: i32,
    /// The number of copies; `None` leaves it to the brokers, as below.
    pub replication: Option<i32>,
    /// How long an event stays.
    pub retention: Option<Duration>,
    /// What becomes of old events.
    pub cleanup_policy: Option<String>,
}

impl KafkaSettings {
    /// The defaults, for the cluster that these brokers belong to.
    pub fn new(brokers: Brokers) -> Self {
        let topics =
            Topics { prefix: String::new(), partitions: 3, replication: None, retention: None, cleanup_policy: None };
        Self { brokers, config_file: None, oauth_token_file: None, topics }
    }
}

impl KafkaConfig {
    /// What the variables say; `None` if they name no broker.
    pub fn settings(&self) -> Option<KafkaSettings> {
        let topics = Topics {
            prefix: self.kafka_topic_prefix.clone(),
            partitions: self.kafka_topic_partitions,
            replication: self.kafka_topic_replication,
            retention: self.kafka_topic_retention,
            cleanup_policy: self.kafka_topic_cleanup_policy.clone(),
        };
        let (config_file, oauth_token_file) = (self.kafka_config_file.clone(), self.kafka_oauth_token_file.clone());
        self.kafka_brokers.clone().map(|brokers| KafkaSettings { brokers, config_file, oauth_token_file, topics })
    }
}

/// What may stand in a topic's name.
fn prefix(text: &str) -> Result<String, &'static str> {
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if text.len() <= 200 && text.chars().all(is_legal) {
        Ok(text.to_owned())
    } else {
        Err("may contain letters, digits, `.`, `_` and `-`, 200 at most")
    }
}
