//! What the metrics say of relay and consumer.

use std::sync::Arc;
use std::time::Duration;

use broker::kafka;
use chassis::events::{Broker, Wakeups};
use chassis::health::Health;
use chassis::http::operations::{Operations, routes};
use dev::http::Client;

use crate::cluster::Cluster;
use crate::suite::fakes::{Applied, Log};
use crate::suite::{SOURCE, Server, new_name};

fn service() -> Client {
    chassis::metrics::recorder();
    let health = Health::new(Arc::new(|| Box::pin(async { Ok(()) })));
    let operations = Operations { health, gauges: Arc::new(|| ()), remotes: Vec::new() };
    Client::router(routes::<()>(operations).split_for_parts().0)
}

/// The value of a metric with exactly these labels, if it is there.
async fn metric(service: &Client, name: &str, labels: &str) -> Option<f64> {
    let page = service.get("/metrics").await.expect(200).text();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name}{{{labels}}} ")).map(str::to_owned));
    line.map(|value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lags_grow_while_no_broker_answers() {
    let (service, nobody) = (service(), kafka::Cluster::new("127.0.0.1:1".parse().expect("a broker")));
    let (topic, log, inbox, wakeups) = (new_name("topic"), Log::new(1), Applied::default(), Wakeups::default());
    let (consumed, published) = (format!("of=\"{topic}\""), format!("topic=\"{topic}\",via=\"kafka\""));
    let watching = async {
        // Longer than the consumer waits until it asks the brokers whether it is at the end.
        dev::wait::until("the consumer's lag", async || {
            metric(&service, "event_lag_seconds", &consumed).await.is_some_and(|lag| lag > 4.0)
        })
        .await;
        let first = metric(&service, "relay_lag_seconds", &published).await.expect("a lag");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let second = metric(&service, "relay_lag_seconds", &published).await.expect("a lag");
        assert!(second >= first + 0.15, "{first} {second}");
        let error = format!("topic=\"{topic}\",error=\"AllBrokersDown\"");
        assert!(metric(&service, "kafka_errors_total", &error).await.is_some_and(|errors| errors > 0.0));
        assert!(metric(&service, "kafka_last_error_timestamp_seconds", &error).await.is_some_and(|time| time > 1e9));
    };
    tokio::select! {
        never = nobody.publish(topic, SOURCE, &log, &wakeups) => match never {},
        never = nobody.consume(new_name("group"), topic, &inbox) => match never {},
        () = watching => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_how_many_partitions_are_read_and_how_far() {
    let (service, cluster) = (service(), Cluster::new());
    let (topic, log, inbox) = (cluster.new_topic(), Log::new(20), Applied::default());
    cluster.publish(topic, &log).await;
    let labels = format!("topic=\"{topic}\"");
    let watching = dev::wait::until("the end of the topic", async || {
        metric(&service, "kafka_assigned_partitions", &labels).await == Some(3.0)
            && metric(&service, "kafka_lag_offsets", &labels).await == Some(0.0)
    });
    cluster.consuming(new_name("group"), topic, &inbox, watching).await;
    inbox.until_all(&log).await;
    assert!(metric(&service, "kafka_rebalances_total", &labels).await.is_some_and(|count| count >= 1.0));
    dev::wait::until("it has left", async || metric(&service, "kafka_assigned_partitions", &labels).await == Some(0.0))
        .await;
}
