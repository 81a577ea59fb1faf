//! From the log to the exchange: what is RabbitMQ's own.

use chassis::events::{Broker, RabbitmqSettings};
use lapin::options::QueueDeleteOptions;
use tokio::time::Duration;

use crate::server::RabbitMq;
use crate::suite::fakes::{Log, assert_all, assert_in_order, until};
use crate::suite::{Record, Server, relaying};

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_key_is_the_type_and_the_stream_keeps_persistent_messages() {
    let server = RabbitMq::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(5));
    server.publish(topic, &log).await;
    for record in server.read(topic) {
        assert_eq!(record.key, record.attribute("type"));
    }
    for message in crate::server::read(&server, &format!("{topic}.events")).await {
        assert_eq!(message.exchange.as_str(), topic);
        assert_eq!(*message.properties.delivery_mode(), Some(2));
        assert!(message.properties.message_id().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_is_named_and_not_overtaken_by_those_behind_it() {
    let small = "max_message_size = 100000";
    let private = dev::rabbitmq::Server::start_with(&[small]).expect("RabbitMQ runs");
    let server = RabbitMq::Shared(Box::leak(Box::new(private)));
    let (topic, mut log) = (server.new_topic(), Log::about(1, 30));
    // All events of one thing, and the twentieth is too large.
    log.large = Some((19, 200_000));
    let logs = crate::server::logs();
    let stuck = async {
        until(&log.published, |published| published.position == 19).await;
        let twentieth = log.ids()[19].clone();
        let named = format!("did not take the event {twentieth} (2000");
        dev::wait::until(&named, async || logs.contain(&named)).await;
    };
    server.relaying(topic, &log, stuck).await;
    assert_eq!(server.read(topic).len(), 19, "nothing behind it");
    log.large = None;
    server.publish(topic, &log).await;
    let records = server.read(topic);
    assert_all(&log, records.iter().map(Record::id));
    assert_in_order(records.iter().map(Record::id));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_queue_takes_is_not_counted_as_published() {
    let server = RabbitMq::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(20));
    let deleted = async {
        log.until_published().await;
        let (_connection, channel) = server.open().await;
        let stream = format!("{topic}.events");
        channel.queue_delete(stream.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        log.append(20);
        log.until_published().await;
    };
    server.relaying(topic, &log, deleted).await;
    // The relay made the stream anew when the events were returned, and it has everything again.
    let ids: Vec<String> = server.read(topic).iter().map(Record::id).collect();
    assert_eq!(ids, log.ids());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_has_the_retention_of_the_variables() {
    let server = RabbitMq::shared().await;
    let (topic, mut log) = (server.new_topic(), Log::new(300));
    log.ballast = 1_000;
    let settings = RabbitmqSettings { max_bytes: Some(100_000), ..server.settings() };
    let broker = broker::rabbitmq::Server::new(settings).expect("a URL");
    relaying(broker, topic, &log, log.until_published()).await;
    let first = async || server.read(topic).first().map(Record::id);
    dev::wait::until("the first events have left", async || first().await != log.ids().first().cloned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_may_only_publish_uses_what_others_have_made() {
    let server = RabbitMq::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(10));
    server.publish(topic, &log).await;
    let (user, password) = (crate::suite::new_name("user"), "secret");
    server.control(&["add_user", user, password]).expect("added");
    server.control(&["set_permissions", user, "^$", &format!("^{topic}$"), "^$"]).expect("permitted");
    let url = server.url();
    let host = url.rsplit_once('@').expect("a user").1;
    let url = format!("amqp://{user}:{password}@{host}");
    let settings = RabbitmqSettings { url: chassis::events::RabbitmqUrl::Text(url), ..server.settings() };
    log.append(10);
    let broker = broker::rabbitmq::Server::new(settings).expect("a URL");
    assert_eq!(broker.cursor(), "own log, to RabbitMQ", "a cursor of its own");
    relaying(broker, topic, &log, tokio::time::timeout(Duration::from_secs(60), log.until_published())).await.expect("done");
    assert_all(&log, server.read(topic).iter().map(Record::id));
}
