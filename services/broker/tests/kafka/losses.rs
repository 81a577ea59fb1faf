//! Events that are gone before they were read: nothing is skipped in silence, the inbox is refilled.

use std::collections::BTreeSet;

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::cluster::{Cluster, config};
use crate::suite::fakes::{Applied, Log, PATIENCE, until};
use crate::suite::{Server, new_name};

/// The mock cluster forgets what is beyond 5 MB of a partition.
const BALLAST: usize = 100_000;
const MANY: usize = 80;

impl Cluster {
    /// Has the topic forget its first records: the mock does by itself what a real one is told to.
    async fn forget(&self, topic: &str) {
        let reader: BaseConsumer = config(&self.brokers()).create().expect("a reader");
        let metadata = reader.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        let mut before = TopicPartitionList::new();
        let mut gone = 0;
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = reader.fetch_watermarks(topic, partition.id(), PATIENCE).expect("watermarks");
            gone += low;
            if high > 3 {
                before.add_partition_offset(topic, partition.id(), Offset::Offset(high - 3)).expect("an offset");
            }
        }
        if self.mock.is_none() {
            self.admin().delete_records(&before, &AdminOptions::new()).await.expect("deleted");
        } else {
            assert!(gone > 0, "the mock has kept everything");
        }
    }
}

/// How often a loss was counted.
fn gaps(topic: &str) -> u64 {
    let metrics = chassis::metrics::recorder().render();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("event_gaps_total{{of=\"{topic}\"}} ")));
    line.map_or(0, |count| count.parse().expect("a number"))
}

fn last(log: &Log) -> String {
    log.ids().pop().expect("an event")
}

/// A log about one thing, so all of it is in one partition.
fn large() -> Log {
    let mut log = Log::about(1, 5);
    log.ballast = BALLAST;
    log
}

#[tokio::test]
async fn records_that_were_deleted_before_they_were_read_make_the_inbox_refill() {
    chassis::metrics::recorder();
    let cluster = Cluster::new();
    let (topic, group, log, inbox) = (cluster.new_topic(), new_name("group"), large(), Applied::default());
    cluster.publish(topic, &log).await;
    cluster.consuming(group, topic, &inbox, inbox.until_all(&log)).await;
    assert_eq!((*inbox.refills.borrow(), gaps(topic)), (1, 0), "the first filling is no loss");

    log.append(MANY);
    cluster.publish(topic, &log).await;
    cluster.forget(topic).await;
    let end = last(&log);
    let caught_up = until(&inbox.events, |events| events.iter().any(|event| event.id == end));
    cluster.consuming(group, topic, &inbox, caught_up).await;
    assert_eq!((*inbox.refills.borrow(), gaps(topic)), (2, 1));
    let came: BTreeSet<String> = inbox.ids().into_iter().collect();
    assert!(came.len() < log.ids().len(), "some were gone");

    // The loss is settled: the next one finds none.
    log.append(1);
    cluster.publish(topic, &log).await;
    let end = last(&log);
    let caught_up = until(&inbox.events, |events| events.iter().any(|event| event.id == end));
    cluster.consuming(group, topic, &inbox, caught_up).await;
    assert_eq!((*inbox.refills.borrow(), gaps(topic)), (2, 1));
}

#[tokio::test]
async fn records_that_were_deleted_before_the_first_look_are_no_loss() {
    chassis::metrics::recorder();
    let cluster = Cluster::new();
    let (topic, log, inbox) = (cluster.new_topic(), large(), Applied::default());
    log.append(MANY);
    cluster.publish(topic, &log).await;
    cluster.forget(topic).await;
    let end = last(&log);
    let caught_up = until(&inbox.events, |events| events.iter().any(|event| event.id == end));
    cluster.consuming(new_name("group"), topic, &inbox, caught_up).await;
    assert_eq!((*inbox.refills.borrow(), gaps(topic)), (1, 0));
}

#[tokio::test]
async fn a_topic_made_anew_is_noticed_and_read_from_its_start() {
    chassis::metrics::recorder();
    // It has fewer records than were read, as many, or more.
    for records in [4, 60, 150] {
        let cluster = Cluster::new();
        let (topic, group, log, inbox) = (cluster.new_topic(), new_name("group"), Log::new(60), Applied::default());
        cluster.publish(topic, &log).await;
        cluster.consuming(group, topic, &inbox, inbox.until_all(&log)).await;

        let (anew, other) = (cluster.without(topic).await, Log::new(records));
        anew.publish(topic, &other).await;
        anew.consuming(group, topic, &inbox, inbox.until_all(&other)).await;
        assert_eq!((*inbox.refills.borrow(), gaps(topic)), (2, 1), "{records}");
    }
}

#[tokio::test]
async fn a_topic_deleted_while_it_is_consumed_is_noticed() {
    chassis::metrics::recorder();
    let cluster = Cluster::new();
    if cluster.mock.is_some() {
        eprintln!("skipped: the mock cluster cannot delete a topic");
        return;
    }
    let (topic, log, inbox) = (cluster.new_topic(), Log::new(60), Applied::default());
    cluster.publish(topic, &log).await;
    let other = Log::new(30);
    let meanwhile = async {
        inbox.until_all(&log).await;
        Cluster::new().without(topic).await.publish(topic, &other).await;
        inbox.until_all(&other).await;
    };
    cluster.consuming(new_name("group"), topic, &inbox, meanwhile).await;
    assert_eq!((*inbox.refills.borrow(), gaps(topic)), (2, 1));
}

#[tokio::test]
async fn a_database_that_was_restored_gets_the_events_since_again() {
    let cluster = Cluster::new();
    let (topic, group, log, inbox) = (cluster.new_topic(), new_name("group"), Log::new(50), Applied::default());
    cluster.publish(topic, &log).await;
    cluster.consuming(group, topic, &inbox, inbox.until_all(&log)).await;
    let backup = inbox.cursors.lock().expect("whole").clone();
    log.append(50);
    cluster.publish(topic, &log).await;
    cluster.consuming(group, topic, &inbox, inbox.until_all(&log)).await;
    assert_eq!(inbox.ids().len(), 100);

    // The group has committed everything, and the restored database has half of it.
    *inbox.cursors.lock().expect("whole") = backup;
    cluster.consuming(group, topic, &inbox, until(&inbox.events, |events| events.len() >= 150)).await;
    assert_eq!(inbox.ids().len(), 150);
    let again: BTreeSet<String> = inbox.ids().split_off(100).into_iter().collect();
    let since: BTreeSet<String> = log.ids().split_off(50).into_iter().collect();
    assert_eq!(again, since);
}
