//! Events by Kafka, from the log of one service into the tables of the other, with the real program of orders.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

#[path = "by_broker/mod.rs"]
mod by_broker;
#[path = "http/dial.rs"]
mod dial;
mod killed;
#[expect(dead_code, reason = "shared with the suite of the move, which uses all of it")]
#[path = "../../../shared-db/tests/moves/mod.rs"]
mod moves;
#[expect(dead_code, reason = "shared with the suites through HTTP, which use all of it")]
#[path = "http/support.rs"]
mod support;

use broker::kafka::{Cluster, MockCluster};
use chassis::events::KafkaSettings;
use uuid::Uuid;

/// A cluster: librdkafka's mock in this process, or the broker in `TEST_KAFKA_BROKERS`, with topics of this test's own.
struct Kafka {
    cluster: Cluster,
    /// What tells the program of orders the same.
    variables: Vec<(&'static str, String)>,
    _mock: Option<MockCluster>,
}

fn kafka(topic: &str) -> Kafka {
    let mock = match std::env::var("TEST_KAFKA_BROKERS") {
        Ok(_) => None,
        Err(_) => Some(MockCluster::start(&[topic]).expect("a cluster in this process")),
    };
    let brokers = mock.as_ref().map_or_else(
        || std::env::var("TEST_KAFKA_BROKERS").expect("it is set").parse().expect("host:port"),
        MockCluster::brokers,
    );
    let mut settings = KafkaSettings::new(brokers);
    let mut variables = vec![("EVENTS_VIA", "kafka".to_owned()), ("KAFKA_BROKERS", settings.brokers.to_string())];
    if mock.is_none() {
        settings.topics.prefix = format!("{}.", Uuid::now_v7());
        variables.push(("KAFKA_TOPIC_PREFIX", settings.topics.prefix.clone()));
        variables.push(("KAFKA_GROUP_ID", format!("{}orders", settings.topics.prefix)));
    }
    Kafka { cluster: Cluster::with_variables(settings, []).expect("right"), variables, _mock: mock }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_relay_and_consumer_lose_nothing_and_do_nothing_twice() {
    let kafka = kafka("users");
    by_broker::killed_at_any_point_relay_and_consumer_lose_nothing_and_do_nothing_twice(kafka.cluster, &kafka.variables)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_while_the_tables_move_to_and_fro_all_arrives_in_order() {
    by_broker::what_is_announced_while_the_tables_move_to_and_fro_all_arrives_in_order(kafka("orders").cluster).await;
}
