//! The clusters, and all messages of a topic.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use broker::kafka;
use chassis::events::Brokers;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::suite::fakes::PATIENCE;
use crate::suite::{Record, Server, new_name};

/// A broker.
pub struct Cluster {
    brokers: String,
    /// The controls to make it fail, unless the broker is a real one.
    pub mock: Option<MockCluster<'static, DefaultProducerContext>>,
    /// Keeps other tests from the real broker that is taken down: see [`own`].
    _turn: Option<OwnedMutexGuard<()>>,
}

/// The real broker that tests take down, one after the other: its folder and its address.
fn own() -> Option<(String, String)> {
    Some((std::env::var("TEST_KAFKA_OWN_HOME").ok()?, std::env::var("TEST_KAFKA_OWN_BROKERS").ok()?))
}

/// Runs the script that has started the brokers of `home`; without it, those of the workspace: what it prints.
pub fn script(home: Option<&(String, String)>, arguments: &[&str]) -> String {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev/kafka/kafka.sh"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some((home, brokers)) = home {
        command.env("KAFKA_HOME", home).env("KAFKA_PORT", brokers.rsplit(':').next().expect("host:port"));
    }
    let output = command.output().expect("the script runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Cluster {
    pub fn new() -> Self {
        match std::env::var("TEST_KAFKA_BROKERS") {
            Ok(brokers) => Self { brokers, mock: None, _turn: None },
            Err(_) => Self::mock(),
        }
    }

    /// A broker that can be made to fail.
    pub fn mock() -> Self {
        let mock = MockCluster::new(1).expect("a cluster in this process");
        Self { brokers: mock.bootstrap_servers(), mock: Some(mock), _turn: None }
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        config(&self.brokers()).create().expect("an administrator")
    }

    pub fn brokers(&self) -> Brokers {
        self.brokers.parse().expect("host:port")
    }
}

impl Server for Cluster {
    type Broker = kafka::Cluster;

    async fn shared() -> Self {
        Self::new()
    }

    async fn own() -> Self {
        static TURN: OnceLock<Arc<Mutex<()>>> = OnceLock::new();
        let Some(real) = own() else { return Self::mock() };
        let turn = TURN.get_or_init(Arc::default).clone().lock_owned().await;
        // A test before this one may have failed with its broker down.
        if TcpStream::connect(&real.1).is_err() {
            script(Some(&real), &["revive", "0"]);
        }
        Self { brokers: real.1, mock: None, _turn: Some(turn) }
    }

    fn broker(&self) -> kafka::Cluster {
        kafka::Cluster::new(self.brokers())
    }

    /// An unused topic. On a real broker the relay creates it; the mock cluster cannot create topics on request.
    fn new_topic(&self) -> &'static str {
        let topic = new_name("topic");
        if let Some(mock) = &self.mock {
            mock.create_topic(topic, 3, 1).expect("created");
        }
        topic
    }

    fn read(&self, topic: &str) -> Vec<Record> {
        read(&self.brokers(), topic)
    }

    async fn send(&self, topic: &str, header: Option<&[u8]>, content_type: Option<&str>, payload: &[u8]) -> String {
        let producer: FutureProducer = config(&self.brokers()).create().expect("a producer");
        let headers = [("trace", header), ("content-type", content_type.map(str::as_bytes))];
        let headers = headers.into_iter().filter(|(_, value)| value.is_some());
        let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value }));
        let record = FutureRecord::<str, [u8]>::to(topic).payload(payload).partition(0).headers(headers);
        let sent = producer.send(record, PATIENCE).await.expect("sent");
        format!("{topic}/0/{}", sent.offset)
    }

    /// The mock cannot delete, so it is another cluster.
    async fn without(self, topic: &'static str) -> Self {
        if self.mock.is_some() {
            let other = Self::mock();
            other.mock.as_ref().expect("it is one").create_topic(topic, 3, 1).expect("created");
            return other;
        }
        for deleted in self.admin().delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer") {
            deleted.expect("deleted");
        }
        self
    }

    fn down(&mut self) {
        match &self.mock {
            Some(mock) => mock.broker_down(-1).expect("down"),
            None => drop(script(own().as_ref(), &["kill", "0"])),
        }
    }

    fn up(&mut self) {
        match &self.mock {
            Some(mock) => mock.broker_up(-1).expect("up"),
            None => drop(script(own().as_ref(), &["revive", "0"])),
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
        let mut headers: Vec<(String, String)> = headers.into_iter().flatten().collect();
        let content_type = headers.extract_if(.., |(name, _)| name == "content-type").next();
        let attribute = |(name, value): (String, String)| (name.strip_prefix("ce_").unwrap_or(&name).to_owned(), value);
        records.push(Record {
            attributes: headers.into_iter().map(attribute).collect(),
            content_type: content_type.map(|(_, value)| value).unwrap_or_default(),
            key: message.key().map(text).unwrap_or_default(),
            value: message.payload().map(text).unwrap_or_default(),
        });
    }
    records
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}
