//! From the stream to the inbox: events that left the stream before they were read.

use broker::rabbitmq;
use chassis::events::RabbitmqSettings;

use crate::server::{RabbitMq, logs};
use crate::suite::fakes::{Applied, Log, assert_all, assert_in_order, until};
use crate::suite::{Record, Server, consuming, new_name, relaying};

/// A client that creates streams of about this size.
fn with_retention(server: &RabbitMq, bytes: u64) -> rabbitmq::Server {
    rabbitmq::Server::new(RabbitmqSettings { max_bytes: Some(bytes), ..server.settings() }).expect("a URL")
}

/// Publishes events until the stream no longer has the first of them.
async fn publish_too_much(server: &RabbitMq, topic: &'static str, log: &mut Log) {
    log.ballast = 1_000;
    log.append(300);
    relaying(with_retention(server, 100_000), topic, log, log.until_published()).await;
    let first = async || server.read(topic).first().map(Record::id);
    dev::wait::until("the first events have left", async || first().await != log.ids().first().cloned()).await;
}

/// Appends events, and waits until the inbox has them.
async fn follow(server: &RabbitMq, topic: &'static str, log: &Log, inbox: &Applied) {
    let old = log.ids().len();
    log.append(10);
    let new = log.ids()[old..].to_vec();
    let arrived = until(&inbox.events, |events| new.iter().all(|id| events.iter().any(|event| event.id == *id)));
    relaying(server.broker(), topic, log, consuming(server.broker(), "group", topic, inbox, arrived)).await;
}

/// Waits until the inbox is refilled, and has stored the place to go on from. What is published later must come.
async fn refill_and_follow(server: &RabbitMq, topic: &'static str, log: &Log, inbox: &Applied) {
    let place = || inbox.cursors.lock().expect("whole").clone();
    let before = place();
    let refilled = async {
        until(&inbox.refills, |refills| *refills == 1).await;
        dev::wait::until("the place is stored", async || place() != before).await;
        log.append(10);
        let new = log.ids().split_off(log.ids().len() - 10);
        let arrived = until(&inbox.events, |events| new.iter().all(|id| events.iter().any(|event| event.id == *id)));
        relaying(server.broker(), topic, log, arrived).await;
    };
    consuming(server.broker(), "group", topic, inbox, refilled).await;
    assert_eq!(*inbox.refills.borrow(), 1);
    let inbox = inbox.successor();
    follow(server, topic, log, &inbox).await;
    assert_eq!((*inbox.refills.borrow(), inbox.ids().len()), (0, 10), "nothing was lost, and nothing came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_left_the_stream_before_they_were_read_refill_the_inbox() {
    let logs = logs();
    let server = RabbitMq::shared().await;
    let (topic, mut log, inbox) = (server.new_topic(), Log::new(20), Applied::default());
    relaying(with_retention(&server, 100_000), topic, &log, log.until_published()).await;
    server.consume_all("group", topic, &log, &inbox).await;
    assert_eq!(*inbox.refills.borrow(), 1, "an inbox that has read nothing is filled");
    let loss = format!("anew of=\"{topic}\"");
    assert!(!logs.contain(&loss), "which is none");

    publish_too_much(&server, topic, &mut log).await;
    refill_and_follow(&server, topic, &log, &inbox.successor()).await;
    assert!(logs.contain(&loss) && logs.contain(&format!("{topic}.events has `")), "the loss was logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_refills_the_inbox_though_it_has_other_events_at_the_same_offsets() {
    for events in [105, 300] {
        let server = RabbitMq::shared().await;
        let (topic, log, inbox) = (server.new_topic(), Log::new(100), Applied::default());
        server.publish(topic, &log).await;
        server.consume_all("group", topic, &log, &inbox).await;

        let (server, other) = (server.without(topic).await, Log::new(events));
        server.publish(topic, &other).await;
        refill_and_follow(&server, topic, &other, &inbox.successor()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_under_its_reader_refills_the_inbox() {
    let server = RabbitMq::shared().await;
    let (topic, log, other, inbox) = (server.new_topic(), Log::new(100), Log::new(0), Applied::default());
    let place = || inbox.cursors.lock().expect("whole").clone();
    let deleted = async {
        relaying(server.broker(), topic, &log, inbox.until_all(&log)).await;
        let server = RabbitMq::shared().await.without(topic).await;
        let before = place();
        let refilled = async {
            until(&inbox.refills, |refills| *refills == 2).await;
            dev::wait::until("the place is stored", async || place() != before).await;
            other.append(10);
            inbox.until_all(&other).await;
        };
        relaying(server.broker(), topic, &other, refilled).await;
    };
    consuming(server.broker(), "group", topic, &inbox, deleted).await;
    assert_in_order(inbox.ids());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_there_before_the_stream_gets_all_of_it() {
    let server = RabbitMq::shared().await;
    let (topic, log, inbox) = (server.new_topic(), Log::new(100), Applied::default());
    let early = async {
        until(&inbox.refills, |refills| *refills == 1).await;
        relaying(server.broker(), topic, &log, inbox.until_all(&log)).await;
    };
    consuming(server.broker(), new_name("group"), topic, &inbox, early).await;
    assert_all(&log, inbox.ids());
    assert_eq!((*inbox.refills.borrow(), inbox.ids().len()), (1, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_comes_late_is_filled_once_and_goes_on_from_the_end() {
    let logs = logs();
    let server = RabbitMq::shared().await;
    let (topic, mut log, inbox) = (server.new_topic(), Log::new(20), Applied::default());
    relaying(with_retention(&server, 100_000), topic, &log, log.until_published()).await;
    publish_too_much(&server, topic, &mut log).await;
    refill_and_follow(&server, topic, &log, &inbox).await;
    assert!(!logs.contain(&format!("anew of=\"{topic}\"")), "which is no loss");
}
