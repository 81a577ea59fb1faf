//! From the log to the broker.

use chassis::events::Position;

use super::fakes::{Log, TRACEPARENT, assert_all, assert_in_order, time, until};
use super::{Record, SOURCE, Server, relay_for, relaying};

fn ids(records: &[Record]) -> impl Iterator<Item = String> {
    records.iter().map(Record::id)
}

pub async fn an_event_is_published_once_in_its_order_as_a_cloudevent<S: Server>() {
    let metrics = chassis::metrics::recorder();
    let server = S::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(200));
    server.publish(topic, &log).await;

    let metrics = metrics.render();
    for (metric, value) in [("events_published_total", "200"), ("relay_lag_seconds", "0")] {
        let begin = format!("{metric}{{topic=\"{topic}\"");
        let line =
            metrics.lines().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("no {begin} in {metrics}"));
        assert!(line.ends_with(&format!("}} {value}")), "{line}");
    }
    let records = server.read(topic);
    assert_eq!(records.len(), 200);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
    for record in records {
        let id = record.id();
        let (subject, version) = id.split_once('/').expect("an event's id");
        for (name, value) in [
            ("specversion", "1.0"),
            ("source", SOURCE),
            ("type", "thing.happened.v1"),
            ("subject", subject),
            ("time", "2023-11-14T22:13:20.250Z"),
            ("actor", "somebody"),
            ("traceparent", TRACEPARENT),
        ] {
            assert_eq!(record.attribute(name), value, "{name}");
        }
        assert_eq!(record.attributes.len(), 8, "{:?}", record.attributes);
        assert_eq!(record.content_type, "application/json");
        assert_eq!(record.value, format!(r#"{{"version":{version}}}"#));
    }
    assert_eq!(serde_json::to_value(time()).expect("JSON"), "2023-11-14T22:13:20.250Z", "it is as the feed writes it");
}

pub async fn an_event_appended_later_is_published_too<S: Server>() {
    let server = S::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(3));
    let later = async {
        log.until_published().await;
        log.append(3);
        log.until_published().await;
    };
    server.relaying(topic, &log, later).await;
    assert_all(&log, ids(&server.read(topic)));
}

pub async fn a_relay_stopped_anywhere_loses_nothing_and_keeps_the_order<S: Server>() {
    let server = S::shared().await;
    let (topic, log) = (server.new_topic(), Log::new(0));
    // The start takes some, and each event of a batch one more at most.
    for polls in (1..12).chain((12..100).step_by(6)) {
        log.append(20);
        relay_for(polls, server.broker(), topic, &log).await;
    }
    server.publish(topic, &log).await;

    let records = server.read(topic);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
}

pub async fn what_a_position_says_is_published_survives_the_end_of_the_broker<S: Server>() {
    let mut server = S::own().await;
    let (topic, log) = (server.new_topic(), Log::new(2_000));
    let (broker, half) = (server.broker(), async {
        until(&log.published, |published| published.position >= 1_000).await;
        server.down();
    });
    relaying(broker, topic, &log, half).await;
    let published = *log.published.borrow();
    assert!(published > Position::default());
    server.up();

    let there: Vec<String> = ids(&server.read(topic)).collect();
    let lost: Vec<String> = log.ids_up_to(published).into_iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
    assert_in_order(there);
    server.publish(topic, &log).await;
    let records = server.read(topic);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
}

pub async fn a_broker_that_is_away_holds_events_back_and_loses_none<S: Server>() {
    let mut server = S::own().await;
    let (topic, log) = (server.new_topic(), Log::new(100));
    let (broker, outage) = (server.broker(), async {
        log.until_published().await;
        let published = *log.published.borrow();
        server.down();
        log.append(100);
        let reads = *log.reads.borrow();
        until(&log.reads, |now| *now > reads).await;
        assert_eq!(*log.published.borrow(), published);
        server.up();
        log.until_published().await;
    });
    relaying(broker, topic, &log, outage).await;
    let records = server.read(topic);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
}
