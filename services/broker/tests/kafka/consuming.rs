//! From the topic to the inbox.

use std::sync::atomic::Ordering;

use broker::kafka::consume;
use futures_util::future::join_all;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::cluster::{Cluster, config, new_name};
use crate::fakes::{Applied, Log, Stage, assert_all, assert_in_order, time, until};

/// Consumes until everything in the log is applied.
async fn consume_all(cluster: &Cluster, group: &str, topic: &'static str, log: &Log, inbox: &Applied) {
    cluster.consuming(group, topic, inbox, inbox.until_all(log)).await;
}

#[tokio::test]
async fn an_event_arrives_as_it_was_published() {
    let cluster = Cluster::new();
    let (topic, log, inbox) = (cluster.new_topic(), Log::new(60), Applied::default());
    cluster.publish(topic, &log).await;
    consume_all(&cluster, new_name("group"), topic, &log, &inbox).await;
    assert_eq!(inbox.ids().len(), 60, "none came twice");
    assert_in_order(inbox.ids());
    let event = inbox.events.borrow()[0].clone();
    assert_eq!(event.r#type, "thing.happened.v1");
    assert_eq!(event.time, Some(time()));
    assert_eq!(event.data, r#"{"version":1}"#);
}

#[tokio::test]
async fn a_consumer_stopped_anywhere_applies_everything_at_least_once_and_in_order() {
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::new(600));
    cluster.publish(topic, &log).await;
    let stages = [Stage::Before, Stage::AfterEffect, Stage::AfterReturn];
    let chains = stages.into_iter().flat_map(|stage| [1, 2].map(|call| (stage, call))).map(async |stop| {
        let (group, mut inbox) = (new_name("group"), Applied { stop: Some(stop), ..Applied::default() });
        cluster.consuming(group, topic, &inbox, inbox.stopped.notified()).await;
        inbox.stop = None;
        consume_all(&cluster, group, topic, &log, &inbox).await;
        assert_in_order(inbox.ids());
        let repeated = inbox.ids().len() - 600;
        assert!(repeated > 0 || stop.0 != Stage::AfterEffect, "the effect was not committed, so it comes again");
    });
    join_all(chains).await;
}

#[tokio::test]
async fn a_group_goes_on_from_what_it_committed() {
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::new(50));
    let group = new_name("group");
    cluster.publish(topic, &log).await;
    let first = Applied::default();
    consume_all(&cluster, group, topic, &log, &first).await;

    log.append(50);
    cluster.publish(topic, &log).await;
    let second = Applied::default();
    cluster.consuming(group, topic, &second, until(&second.events, |events| events.len() >= 50)).await;
    let ids = [first.ids(), second.ids()].concat();
    assert_all(&log, ids.clone());
    assert_eq!(ids.len(), 100, "what was committed does not come again");
}

#[tokio::test]
async fn two_members_of_a_group_share_the_topic_and_see_all_of_it() {
    let cluster = Cluster::new();
    // Of few things, no partition of one member might get any.
    let (topic, log) = (cluster.new_topic(), Log::about(50, 100));
    let group = new_name("group");
    cluster.publish(topic, &log).await;
    let members = [Applied::default(), Applied::default()];
    let brokers = cluster.brokers();
    let consuming = join_all(members.iter().map(|inbox| consume(&brokers, group, topic, inbox)));
    let shared = async {
        // The one who joins first may get everything, until the other one is there.
        while members.iter().any(|inbox| inbox.ids().is_empty()) {
            log.append(50);
            cluster.publish(topic, &log).await;
            let all = log.ids();
            let [mut first, mut second] = members.each_ref().map(|inbox| inbox.events.subscribe());
            while !all.iter().all(|id| members.iter().any(|inbox| inbox.ids().contains(id))) {
                tokio::select! {
                    changed = first.changed() => changed.expect("it lives"),
                    changed = second.changed() => changed.expect("it lives"),
                }
            }
        }
    };
    tokio::select! {
        _ = consuming => unreachable!("they never end"),
        () = shared => {}
    }
    assert_all(&log, members.iter().flat_map(Applied::ids));
}

#[tokio::test]
async fn an_inbox_that_fails_gets_the_same_events_again_and_none_is_skipped() {
    let cluster = Cluster::new();
    let (topic, log, inbox) = (cluster.new_topic(), Log::new(20), Applied::default());
    cluster.publish(topic, &log).await;
    inbox.failures.store(usize::MAX, Ordering::Relaxed);
    let more = async {
        until(&inbox.attempts, |attempts| attempts.len() >= 2).await;
        log.append(20);
        cluster.publish(topic, &log).await;
        let failed = inbox.attempts.borrow().len();
        // Long enough for more to arrive, if the partitions were not paused.
        until(&inbox.attempts, |attempts| attempts.len() >= failed + 3).await;
        inbox.failures.store(0, Ordering::Relaxed);
        inbox.until_all(&log).await;
        failed + 3
    };
    let failed = cluster.consuming(new_name("group"), topic, &inbox, more).await;
    let attempts = inbox.attempts.borrow();
    for attempt in &attempts[1..failed] {
        assert_eq!(*attempt, attempts[0]);
    }
    assert_eq!(inbox.ids().len(), 40, "none came twice");
    assert_in_order(inbox.ids());
}

#[tokio::test]
async fn a_message_that_is_no_event_arrives_without_a_type() {
    let cluster = Cluster::new();
    let (topic, inbox) = (cluster.new_topic(), Applied::default());
    // Creates the topic.
    let log = Log::new(1);
    cluster.publish(topic, &log).await;
    let producer: FutureProducer = config(&cluster.brokers()).create().expect("a producer");
    let foreign = FutureRecord::<str, [u8]>::to(topic).payload(b"not \0 \xff json").partition(0);
    let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some(b"\xff") });
    let sent = producer.send(foreign.headers(headers), std::time::Duration::from_secs(10)).await.expect("sent");
    let headless = FutureRecord::<str, [u8]>::to(topic).partition(0);
    producer.send(headless, std::time::Duration::from_secs(10)).await.expect("sent");
    cluster.consuming(new_name("group"), topic, &inbox, until(&inbox.events, |events| events.len() == 3)).await;
    let events = inbox.events.borrow();
    let found = |offset| {
        let id = format!("{topic}/0/{offset}");
        events.iter().find(|event| event.id == id).expect("it is there").clone()
    };
    let foreign = found(sent.offset);
    assert_eq!((foreign.r#type.as_str(), foreign.time), ("", None));
    assert_eq!(foreign.data, "not \u{fffd} \u{fffd} json", "a text that a database can store");
    assert_eq!(found(sent.offset + 1).data, "");
}

#[tokio::test]
async fn a_broker_that_is_away_for_a_while_interrupts_and_loses_nothing() {
    let cluster = Cluster::mock();
    let (topic, log, inbox) = (cluster.new_topic(), Log::new(50), Applied::default());
    let mock = cluster.mock.as_ref().expect("it is one");
    let outage = async {
        inbox.until_all(&log).await;
        mock.broker_down(-1).expect("down");
        log.append(50);
        let reads = *log.reads.borrow();
        until(&log.reads, |now| *now > reads).await;
        mock.broker_up(-1).expect("up");
        inbox.until_all(&log).await;
    };
    cluster.relaying(topic, &log, cluster.consuming(new_name("group"), topic, &inbox, outage)).await;
    assert_in_order(inbox.ids());
}
