//! From the broker to the inbox.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::fakes::{Applied, Log, Stage, assert_all, assert_in_order, time, until};
use super::{Server, consuming, new_name, relaying};

pub async fn an_event_arrives_as_it_was_published<S: Server>() {
    let server = S::shared().await;
    let (topic, log, inbox) = (server.new_topic(), Log::new(60), Applied::default());
    server.publish(topic, &log).await;
    server.consume_all(new_name("group"), topic, &log, &inbox).await;
    assert_eq!(inbox.ids().len(), 60, "none came twice");
    assert_in_order(inbox.ids());
    let event = inbox.events.borrow()[0].clone();
    assert_eq!(event.r#type, "thing.happened.v1");
    assert_eq!(event.time, Some(time()));
    assert_eq!(event.data, r#"{"version":1}"#);
}

pub async fn a_consumer_stopped_anywhere_applies_everything_at_least_once_and_in_order<S: Server>() {
    let server = S::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(600));
    server.publish(topic, &log).await;
    let stages = [Stage::Before, Stage::AfterEffect, Stage::AfterReturn];
    let chains = stages.into_iter().flat_map(|stage| [1, 2].map(|call| (stage, call))).map(async |stop| {
        let (group, mut inbox) = (new_name("group"), Applied { stop: Some(stop), ..Applied::default() });
        server.consuming(group, topic, &inbox, inbox.stopped.notified()).await;
        inbox.stop = None;
        server.consume_all(group, topic, &log, &inbox).await;
        assert_in_order(inbox.ids());
        let repeated = inbox.ids().len() - 600;
        assert!(repeated > 0 || stop.0 != Stage::AfterEffect, "the place was not stored, so the effect comes again");
    });
    join_all(chains).await;
}

pub async fn a_consumer_goes_on_behind_what_it_has_applied<S: Server>() {
    let server = S::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(50));
    let group = new_name("group");
    server.publish(topic, &log).await;
    let first = Applied::default();
    server.consume_all(group, topic, &log, &first).await;

    log.append(50);
    server.publish(topic, &log).await;
    let second = first.successor();
    server.consuming(group, topic, &second, until(&second.events, |events| events.len() >= 50)).await;
    let ids = [first.ids(), second.ids()].concat();
    assert_all(&log, ids.clone());
    assert_eq!(ids.len(), 100, "what was applied does not come again");
}

pub async fn an_instance_takes_over_where_another_one_was_stopped<S: Server>() {
    let server = S::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(0));
    let (group, inbox) = (new_name("group"), Applied::default());
    let turns = async {
        for _ in 0..5 {
            log.append(100);
            let some = inbox.events.borrow().len() + 30;
            // Stopped in the middle of its work. The next one has the same inbox.
            server.consuming(group, topic, &inbox, until(&inbox.events, |events| events.len() >= some)).await;
        }
        server.consume_all(group, topic, &log, &inbox).await;
    };
    server.relaying(topic, &log, turns).await;
    assert_all(&log, inbox.ids());
    assert_in_order(inbox.ids());
}

pub async fn an_inbox_that_fails_gets_the_same_events_again_and_none_is_skipped<S: Server>() {
    let server = S::shared().await;
    let (topic, log, inbox) = (server.new_topic(), Log::new(20), Applied::default());
    server.publish(topic, &log).await;
    inbox.failures.store(usize::MAX, Ordering::Relaxed);
    let more = async {
        until(&inbox.attempts, |attempts| attempts.len() >= 2).await;
        log.append(20);
        server.publish(topic, &log).await;
        let failed = inbox.attempts.borrow().len();
        // Long enough for more to arrive, if the reading went on.
        until(&inbox.attempts, |attempts| attempts.len() >= failed + 3).await;
        inbox.failures.store(0, Ordering::Relaxed);
        inbox.until_all(&log).await;
        failed + 3
    };
    let failed = server.consuming(new_name("group"), topic, &inbox, more).await;
    let attempts = inbox.attempts.borrow();
    for attempt in &attempts[1..failed] {
        assert_eq!(*attempt, attempts[0]);
    }
    assert_eq!(inbox.ids().len(), 40, "none came twice");
    assert_in_order(inbox.ids());
}

pub async fn a_message_that_is_no_event_arrives_without_a_type<S: Server>() {
    let server = S::shared().await;
    let (topic, inbox) = (server.new_topic(), Applied::default());
    // Creates the topic.
    server.publish(topic, &Log::new(1)).await;
    let foreign = server.send(topic, Some(b"\xff"), None, b"not \0 \xff json").await;
    let headless = server.send(topic, None, None, b"").await;
    let both =
        until(&inbox.events, |events| [&foreign, &headless].iter().all(|id| events.iter().any(|event| event.id == **id)));
    server.consuming(new_name("group"), topic, &inbox, both).await;
    let events = inbox.events.borrow();
    let found = |id: &str| events.iter().find(|event| event.id == id).unwrap_or_else(|| panic!("no {id}: {events:?}"));
    let foreign = found(&foreign);
    assert_eq!((foreign.r#type.as_str(), foreign.time), ("", None));
    assert_eq!(foreign.data, "not \u{fffd} \u{fffd} json", "a text that a database can store");
    assert_eq!(found(&headless).data, "");
}

pub async fn an_event_in_structured_mode_arrives_as_any_other<S: Server>() {
    let server = S::shared().await;
    let (topic, inbox) = (server.new_topic(), Applied::default());
    // Creates the topic.
    server.publish(topic, &Log::new(1)).await;
    let event = r#"{"specversion":"1.0","id":"1/2","source":"/x","type":"x.happened.v1","time":"2026-01-01T00:00:00Z",
        "datacontenttype":"application/json","data":{"version": 2}}"#;
    let mode = "application/cloudevents+json; charset=utf-8";
    server.send(topic, None, Some(mode), event.as_bytes()).await;
    let broken = server.send(topic, None, Some(mode), b"{}").await;
    let both = until(&inbox.events, |events| events.iter().any(|event| event.id == broken));
    server.consuming(new_name("group"), topic, &inbox, both).await;
    let events = inbox.events.borrow();
    let event = events.iter().find(|event| event.id == "1/2").expect("it was read");
    assert_eq!((&*event.r#type, &*event.data), ("x.happened.v1", r#"{"version": 2}"#));
    assert_eq!(event.time.expect("a time").to_rfc3339(), "2026-01-01T00:00:00+00:00");
    let broken = events.iter().find(|event| event.id == broken).expect("it was read");
    assert_eq!((&*broken.r#type, &*broken.data), ("", "{}"), "it is no event, and can be parked");
}

/// The consumer has no place by which it could know the topic again, so the relay must bring everything.
pub async fn a_topic_deleted_before_anything_was_read_gets_the_whole_log_again<S: Server>() {
    let server = S::shared().await;
    let (topic, group, log, inbox) = (server.new_topic(), new_name("group"), Log::new(0), Applied::default());
    // The inbox is filled while the topic is empty.
    let filled = server.consuming(group, topic, &inbox, until(&inbox.refills, |refills| *refills == 1));
    server.relaying(topic, &log, filled).await;
    log.append(50);
    server.publish(topic, &log).await;
    let server = server.without(topic).await;
    log.append(50);
    server.publish(topic, &log).await;
    server.consume_all(group, topic, &log, &inbox).await;
    assert_in_order(inbox.ids());

    // A topic that has what was published gets nothing twice.
    let before = inbox.ids().len();
    log.append(10);
    server.publish(topic, &log).await;
    server.consume_all(group, topic, &log, &inbox).await;
    assert_eq!(inbox.ids().len(), before + 10);
}

pub async fn a_broker_that_is_away_for_a_while_interrupts_and_loses_nothing<S: Server>() {
    let mut server = S::own().await;
    let (topic, log, inbox) = (server.new_topic(), Log::new(50), Applied::default());
    let (relay, consumer) = (server.broker(), server.broker());
    let outage = async {
        inbox.until_all(&log).await;
        server.down();
        log.append(50);
        let reads = *log.reads.borrow();
        until(&log.reads, |now| *now > reads).await;
        server.up();
        inbox.until_all(&log).await;
    };
    relaying(relay, topic, &log, consuming(consumer, new_name("group"), topic, &inbox, outage)).await;
    assert_in_order(inbox.ids());
}
