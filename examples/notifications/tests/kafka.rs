//! The program beside the real orders service, by Kafka: librdkafka's mock cluster, or the broker in `TEST_KAFKA_BROKERS`.

mod support;

use axum::http::StatusCode;
use broker::kafka;
use chassis::events::{KafkaSettings, publish};
use dev::wait::until;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::task::JoinHandle;
use uuid::Uuid;

use support::{Orders, Program, Webhook, kill, nothing_is_missing};

/// A broker, and a prefix that no other test uses.
struct Kafka {
    brokers: String,
    prefix: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Kafka {
    fn start() -> Self {
        let prefix = format!("test-{}-", Uuid::now_v7());
        if let Ok(brokers) = std::env::var("TEST_KAFKA_BROKERS") {
            return Self { brokers, prefix, mock: None };
        }
        let mock = MockCluster::new(1).expect("a cluster in this process");
        mock.create_topic(&format!("{prefix}orders"), 3, 1).expect("a topic");
        Self { brokers: mock.bootstrap_servers(), prefix, mock: Some(mock) }
    }

    /// Runs the relay of orders.
    fn relay(&self, orders: &Orders) -> JoinHandle<()> {
        let mut settings = KafkaSettings::new(self.brokers.parse().expect("brokers"));
        settings.topics.prefix = self.prefix.clone();
        let cluster = kafka::Cluster::with_variables(settings, []).expect("settings");
        let app = orders.app.clone();
        tokio::spawn(async move { match publish(&app, &[cluster]).await {} })
    }

    /// How the program reaches it.
    fn source(&self) -> [&str; 4] {
        ["--kafka-brokers", &self.brokers, "--kafka-topic-prefix", &self.prefix]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_while_the_broker_comes_and_goes_it_misses_nothing() {
    let (orders, webhook) = (Orders::start().await, Webhook::start(|_, _| StatusCode::OK).await);
    let kafka = Kafka::start();
    let _relay = kafka.relay(&orders);
    let program = Program::new("kafka", &kafka.source(), &webhook);
    nothing_is_missing(&orders, &webhook, &program, async |n| match (n % 8, &kafka.mock) {
        (2, Some(mock)) => mock.broker_down(-1).expect("down"),
        (5, Some(mock)) => mock.broker_up(-1).expect("up"),
        _ => {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_left_the_topic_before_they_were_read_are_noticed_and_the_rest_is_sent() {
    let (before, webhook) = (Orders::start().await, Webhook::start(|_, _| StatusCode::OK).await);
    let kafka = Kafka::start();
    let _relay = kafka.relay(&before);
    let mut program = Program::new("kafka", &kafka.source(), &webhook);
    let running = program.start();
    for _ in 0..20 {
        before.place_and(&["pay", "ship"]).await;
    }
    let events = before.events().await;
    webhook.until_taken(&events).await;
    program.until_stored(events.len()).await;
    kill(running);

    // Another topic is in its place, and is shorter than what was read.
    let after = Orders::start().await;
    let kafka = Kafka::start();
    let _relay = kafka.relay(&after);
    program.read_from(&kafka.source());
    after.place_and(&[]).await;
    let _running = program.start();
    webhook.until_taken(&after.events().await).await;
    until("the loss is counted", async || program.file().contains_key("lost: kafka")).await;
    assert_eq!(webhook.taken().len(), events.len() + 1, "and nothing twice");
}
