//! From the topic to the inbox: what only Kafka promises.

use std::pin::pin;

use broker::kafka;
use chassis::events::{Broker, KafkaSettings};
use futures_util::future::join_all;

use crate::cluster::Cluster;
use crate::suite::fakes::{Applied, Log, assert_all};
use crate::suite::{Server, new_name};

#[tokio::test]
async fn the_next_process_does_not_wait_for_one_that_hangs() {
    let cluster = Cluster::new();
    let (topic, group, log) = (cluster.new_topic(), new_name("group"), Log::new(50));
    cluster.publish(topic, &log).await;
    let (inbox, broker) = (Applied::default(), cluster.broker());
    let mut hanging = pin!(broker.consume(group, topic, &inbox));
    tokio::select! {
        never = &mut hanging => match never {},
        () = inbox.until_all(&log) => {}
    }
    // Nothing polls it any more, and its heartbeats go on. The group would wait five minutes for it.
    log.append(50);
    cluster.publish(topic, &log).await;
    cluster.consume_all(group, topic, &log, &inbox).await;
    assert_all(&log, inbox.ids());
}

#[tokio::test]
async fn members_with_ids_of_their_own_share_the_topic_and_see_all_of_it() {
    let cluster = Cluster::new();
    // Of few things, no partition of one member might get any.
    let (topic, log) = (cluster.new_topic(), Log::about(50, 100));
    let group = new_name("group");
    cluster.publish(topic, &log).await;
    let members = [Applied::default(), Applied::default()];
    let brokers = ["first", "second"].map(|id| {
        let id = ("KAFKA_GROUP_INSTANCE_ID".to_owned(), id.to_owned());
        kafka::Cluster::with_variables(KafkaSettings::new(cluster.brokers()), [id]).expect("a setting")
    });
    let consuming = join_all(brokers.iter().zip(&members).map(|(broker, inbox)| broker.consume(group, topic, inbox)));
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
