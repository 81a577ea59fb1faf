//! The cluster, and all messages of a topic.

use std::time::Duration;

use broker::kafka::{consume, relay};
use chassis::events::{Brokers, Wakeups};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::fakes::{Applied, Log};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What the relays of these tests publish as.
pub const SOURCE: &str = "/things";

/// A broker.
pub struct Cluster {
    brokers: String,
    /// The controls to make it fail, unless the broker is a real one.
    pub mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Cluster {
    pub fn new() -> Self {
        match std::env::var("TEST_KAFKA_BROKERS") {
            Ok(brokers) => Self { brokers, mock: None },
            Err(_) => Self::mock(),
        }
    }

    /// A broker that can be made to fail.
    pub fn mock() -> Self {
        let mock = MockCluster::new(1).expect("a cluster in this process");
        Self { brokers: mock.bootstrap_servers(), mock: Some(mock) }
    }

    /// An unused topic. On a real broker the relay creates it; the mock cluster cannot create topics on request.
    pub fn new_topic(&self) -> &'static str {
        let topic = new_name("topic");
        if let Some(mock) = &self.mock {
            mock.create_topic(topic, 3, 1).expect("created");
        }
        topic
    }

    pub fn brokers(&self) -> Brokers {
        self.brokers.parse().expect("host:port")
    }

    /// Does something while a relay takes `log` to `topic`.
    pub async fn relaying<T>(&self, topic: &'static str, log: &Log, meanwhile: impl Future<Output = T>) -> T {
        let (brokers, wakeups) = (self.brokers(), Wakeups::default());
        tokio::select! {
            never = relay(&brokers, topic, SOURCE, log, &wakeups) => match never {},
            done = meanwhile => done,
        }
    }

    /// Runs a relay of `log` until the broker has confirmed all of it.
    pub async fn publish(&self, topic: &'static str, log: &Log) {
        self.relaying(topic, log, log.until_published()).await;
    }

    /// Does something while `inbox` gets what comes to `topic`.
    pub async fn consuming<T>(
        &self,
        group: &str,
        topic: &'static str,
        inbox: &Applied,
        meanwhile: impl Future<Output = T>,
    ) -> T {
        let brokers = self.brokers();
        tokio::select! {
            never = consume(&brokers, group, topic, inbox) => match never {},
            done = meanwhile => done,
        }
    }
}

/// The configuration of the tests' own clients.
pub fn config(brokers: &Brokers) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.to_string());
    config
}

/// All messages of the topic.
pub fn read(brokers: &Brokers, topic: &str) -> Vec<Record> {
    let reader: BaseConsumer = config(brokers).set("group.id", "none").create().expect("a reader");
    let metadata = reader.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
    let mut starts = TopicPartitionList::new();
    let mut missing = 0;
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = reader.fetch_watermarks(topic, partition.id(), PATIENCE).expect("watermarks");
        missing += high - low;
        starts.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a place");
    }
    reader.assign(&starts).expect("assigned");
    let mut records = Vec::new();
    while missing > 0 {
        // Errors of the connection pass.
        let Ok(message) = reader.poll(PATIENCE).expect("a record in time") else { continue };
        missing -= 1;
        let headers = message
            .headers()
            .map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default())));
        records.push(Record {
            key: message.key().map(text).unwrap_or_default(),
            headers: headers.into_iter().flatten().collect(),
            value: message.payload().map(text).unwrap_or_default(),
        });
    }
    records
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// An unused name for a topic or a group.
pub fn new_name(what: &str) -> &'static str {
    format!("{what}-{}", Uuid::now_v7()).leak()
}

/// A message of a topic.
pub struct Record {
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub value: String,
}

impl Record {
    pub fn id(&self) -> String {
        self.headers.iter().find(|(name, _)| name == "ce_id").map(|(_, id)| id.clone()).expect("an id")
    }
}
