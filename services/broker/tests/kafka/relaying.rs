//! From the log to the topic.

use std::pin::pin;
use std::task::Poll;

use broker::kafka::relay;
use chassis::events::{Position, Wakeups};
use rdkafka::types::RDKafkaApiKey;
use rdkafka::types::RDKafkaRespErr::{
    RD_KAFKA_RESP_ERR__TRANSPORT as DISCONNECTED, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as REFUSED,
    RD_KAFKA_RESP_ERR_NO_ERROR as NONE, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as TRY_AGAIN,
    RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as LATE,
};

use crate::cluster::{Cluster, Record, SOURCE, read};
use crate::fakes::{Log, assert_all, assert_in_order, time, until};

fn ids(records: &[Record]) -> impl Iterator<Item = String> {
    records.iter().map(Record::id)
}

#[tokio::test]
async fn an_event_is_published_once_in_its_order_as_a_cloudevent() {
    let metrics = chassis::metrics::recorder();
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::new(200));
    cluster.publish(topic, &log).await;

    let metrics = metrics.render();
    for metric in
        [format!("events_published_total{{topic=\"{topic}\"}} 200"), format!("relay_lag_seconds{{topic=\"{topic}\"}} 0")]
    {
        assert!(metrics.lines().any(|line| line == metric), "{metric} is not in {metrics}");
    }
    let records = read(&cluster.brokers(), topic);
    assert_eq!(records.len(), 200);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
    for record in records {
        let id = record.id();
        let (subject, version) = id.split_once('/').expect("an event's id");
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", SOURCE),
            ("ce_type", "thing.happened.v1"),
            ("ce_subject", subject),
            ("ce_time", "2023-11-14T22:13:20.250Z"),
            ("content-type", "application/json"),
        ];
        assert_eq!(record.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(record.key, subject);
        assert_eq!(record.value, format!(r#"{{"version":{version}}}"#));
    }
    assert_eq!(
        serde_json::to_value(time()).expect("JSON"),
        "2023-11-14T22:13:20.250Z",
        "the header is as the feed writes it"
    );
}

#[tokio::test]
async fn an_event_appended_later_is_published_too() {
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::new(3));
    cluster
        .relaying(topic, &log, async {
            log.until_published().await;
            log.append(3);
            log.until_published().await;
        })
        .await;
    assert_all(&log, ids(&read(&cluster.brokers(), topic)));
}

#[tokio::test]
async fn a_place_is_stored_only_when_everything_before_it_lies_at_the_broker() {
    for errors in [
        &[TRY_AGAIN, DISCONNECTED, NONE, LATE, DISCONNECTED][..],
        // What is refused stops the producer; the relay starts again from the stored place.
        &[NONE, REFUSED],
        &[REFUSED, NONE, NONE, REFUSED, NONE, DISCONNECTED, REFUSED, NONE, TRY_AGAIN, NONE, NONE, NONE, REFUSED],
    ] {
        let cluster = Cluster::mock();
        let (topic, mut log) = (cluster.new_topic(), Log::new(400));
        cluster.mock.as_ref().expect("it is one").request_errors(RDKafkaApiKey::Produce, errors);
        let brokers = cluster.brokers();
        log.check = Some(Box::new(move |log, up_to| {
            let there: Vec<String> = ids(&read(&brokers, topic)).collect();
            assert!(log.ids_up_to(up_to).iter().all(|id| there.contains(id)), "stored before it was confirmed");
        }));
        cluster.publish(topic, &log).await;

        let records = read(&cluster.brokers(), topic);
        assert_all(&log, ids(&records));
        assert_in_order(ids(&records));
    }
}

#[tokio::test]
async fn an_event_that_is_refused_is_not_overtaken_by_those_sent_after_it() {
    for taken in 1..8 {
        let cluster = Cluster::mock();
        // Large ones, several of which do not fit one request; but this broker forgets what is beyond 5 MB.
        let (topic, mut log) = (cluster.new_topic(), Log::new(24));
        log.ballast = 100_000;
        let errors = [[NONE; 8].split_at(taken).0, &[REFUSED]].concat();
        cluster.mock.as_ref().expect("it is one").request_errors(RDKafkaApiKey::Produce, &errors);
        cluster.publish(topic, &log).await;

        let records = read(&cluster.brokers(), topic);
        assert_all(&log, ids(&records));
        assert_in_order(ids(&records));
    }
}

#[tokio::test]
async fn a_broker_that_is_away_holds_events_back_and_loses_none() {
    let cluster = Cluster::mock();
    let (topic, log) = (cluster.new_topic(), Log::new(100));
    let mock = cluster.mock.as_ref().expect("it is one");
    let outage = async {
        log.until_published().await;
        let published = *log.published.borrow();
        mock.broker_down(-1).expect("down");
        log.append(100);
        let reads = *log.reads.borrow();
        until(&log.reads, |now| *now > reads).await;
        assert_eq!(*log.published.borrow(), published);
        mock.broker_up(-1).expect("up");
        log.until_published().await;
    };
    cluster.relaying(topic, &log, outage).await;
    let records = read(&cluster.brokers(), topic);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
}

/// Runs a relay until it has been polled so often; or until it is done.
async fn relay_for(polls: usize, cluster: &Cluster, topic: &'static str, log: &Log) {
    let (brokers, wakeups) = (cluster.brokers(), Wakeups::default());
    let mut relay = pin!(relay(&brokers, topic, SOURCE, log, &wakeups));
    let mut left = polls;
    let cut = std::future::poll_fn(|context| {
        left = left.saturating_sub(1);
        if left == 0 {
            return Poll::Ready(());
        }
        relay.as_mut().poll(context).map(|never| match never {})
    });
    tokio::select! {
        () = cut => {}
        () = log.until_published() => {}
    }
}

#[tokio::test]
async fn a_relay_stopped_anywhere_loses_nothing_and_keeps_the_order() {
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::new(0));
    // The start takes some, and each event of a batch one more at most.
    for polls in (1..12).chain((12..100).step_by(6)) {
        log.append(20);
        relay_for(polls, &cluster, topic, &log).await;
    }
    assert!(*log.published.borrow() > Position::default(), "some of them came as far as to store a place");
    cluster.publish(topic, &log).await;

    let records = read(&cluster.brokers(), topic);
    assert_all(&log, ids(&records));
    assert_in_order(ids(&records));
}
