//! The records of a topic: where they lie, what others may write into it, and what is too large for it.

use std::time::Duration;

use broker::kafka;
use chassis::events::{Broker, KafkaSettings, TopicCommand, Wakeups};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::cluster::{Cluster, config};
use crate::logged::logged;
use crate::suite::fakes::{Applied, Log, PATIENCE, assert_all, assert_in_order, until};
use crate::suite::{Record, SOURCE, Server, new_name};

/// The hash of Java's client, by which a key has its partition.
fn murmur2(key: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).expect("short");
    let (words, rest) = key.as_chunks();
    for word in words {
        let mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR) ^ (mixed ^ mixed >> 24).wrapping_mul(FACTOR);
    }
    for (place, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

/// The partition of each key.
fn partitions(cluster: &Cluster, topic: &str, records: usize) -> Vec<(Vec<u8>, i32)> {
    let reader: BaseConsumer = config(&cluster.brokers()).set("group.id", "none").create().expect("a reader");
    let mut starts = TopicPartitionList::new();
    for partition in 0..3 {
        starts.add_partition_offset(topic, partition, Offset::Beginning).expect("a place");
    }
    reader.assign(&starts).expect("assigned");
    let mut found = Vec::new();
    while found.len() < records {
        let Ok(message) = reader.poll(PATIENCE).expect("a record in time") else { continue };
        found.push((message.key().expect("a key").to_vec(), message.partition()));
    }
    found
}

#[tokio::test]
async fn a_key_has_the_partition_that_javas_clients_expect() {
    // From Kafka's own tests.
    for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)] {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash);
    }
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::about(30, 30));
    cluster.publish(topic, &log).await;
    for (key, partition) in partitions(&cluster, topic, 30) {
        assert_eq!((murmur2(&key) & 0x7fff_ffff) % 3, partition.cast_unsigned(), "{}", String::from_utf8_lossy(&key));
    }
}

#[tokio::test]
async fn the_key_of_a_record_is_what_its_event_is_about() {
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::new(20));
    cluster.publish(topic, &log).await;
    for record in cluster.read(topic) {
        assert_eq!(record.key, record.attribute("subject"));
    }
}

#[tokio::test]
async fn a_topic_that_exists_keeps_its_partitioner_by_a_setting() {
    let cluster = Cluster::new();
    let (topic, log) = (cluster.new_topic(), Log::about(30, 30));
    let variable = ("KAFKA_PARTITIONER".to_owned(), "consistent_random".to_owned());
    let settings = KafkaSettings::new(cluster.brokers());
    let broker = kafka::Cluster::with_variables(settings, [variable]).expect("right");
    let wakeups = Wakeups::default();
    tokio::select! {
        never = broker.publish(topic, SOURCE, &log, &wakeups) => match never {},
        () = log.until_published() => {}
    }
    let found = partitions(&cluster, topic, 30);
    assert!(found.iter().any(|(key, partition)| (murmur2(key) & 0x7fff_ffff) % 3 != partition.cast_unsigned()));
}

#[tokio::test]
async fn records_of_every_codec_are_read() {
    let cluster = Cluster::new();
    let (topic, inbox) = (cluster.new_topic(), Applied::default());
    cluster.publish(topic, &Log::new(1)).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let producer: FutureProducer =
            config(&cluster.brokers()).set("compression.codec", codec).create().expect("a producer");
        let payload = codec.repeat(100);
        let headers = OwnedHeaders::new().insert(Header { key: "ce_type", value: Some(codec) });
        let record = FutureRecord::<str, str>::to(topic).payload(&payload).headers(headers);
        producer.send(record, PATIENCE).await.expect("sent");
    }
    cluster.consuming(new_name("group"), topic, &inbox, until(&inbox.events, |events| events.len() == 6)).await;
    for codec in codecs {
        let data = codec.repeat(100);
        assert!(inbox.events.borrow().iter().any(|event| event.r#type == codec && event.data == data), "{codec}");
    }
}

#[tokio::test]
async fn a_tombstone_is_no_event_and_moves_the_place() {
    let cluster = Cluster::new();
    let (topic, log, inbox) = (cluster.new_topic(), Log::about(1, 1), Applied::default());
    cluster.publish(topic, &log).await;
    let key = log.ids()[0].split_once('/').expect("an event's id").0.to_owned();
    let producer: FutureProducer = config(&cluster.brokers()).set("partitioner", "murmur2").create().expect("a producer");
    let tombstone = FutureRecord::<str, [u8]>::to(topic).key(&key);
    producer.send(tombstone, PATIENCE).await.expect("sent");
    log.append(1);
    cluster.publish(topic, &log).await;
    cluster.consume_all(new_name("group"), topic, &log, &inbox).await;
    assert_eq!(inbox.ids(), log.ids());
    let cursor = inbox.cursors.lock().expect("whole").values().next().expect("a place").clone();
    assert!(cursor.contains(":3@"), "{cursor}");
}

/// Changes the largest record of the topic, and waits until the broker knows it.
async fn limit(cluster: &Cluster, topic: &str, bytes: &str) {
    let (admin, options) = (cluster.admin(), AdminOptions::new());
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", bytes);
    for changed in admin.alter_configs([&change], &options).await.expect("an answer") {
        changed.expect("changed");
    }
    dev::wait::until("the broker knows the limit", async || {
        let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.expect("an answer");
        let Ok(topic) = &described[0] else { return false };
        topic.get("max.message.bytes").is_some_and(|entry| entry.value.as_deref() == Some(bytes))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_real_broker_refuses_is_not_overtaken_by_those_sent_after_it() {
    let cluster = Cluster::new();
    if cluster.mock.is_some() {
        eprintln!("skipped: the limits of the mock cluster cannot be changed");
        return;
    }
    let (topic, mut log) = (cluster.new_topic(), Log::new(3));
    log.large = Some((9, 50_000));
    let tenth = async {
        // The relay has read the limits, so the broker is the first to refuse.
        log.until_published().await;
        limit(&cluster, topic, "10000").await;
        log.append(20);
        let large = log.ids()[9].clone();
        for named in ["the broker did not take the event", &format!("the event {large} has 50")] {
            let is_named = |line: &str| line.contains(topic) && line.contains(named);
            dev::wait::until(named, async || logged().lines().any(is_named)).await;
        }
    };
    cluster.relaying(topic, &log, tenth).await;
    // Other partitions may have had theirs before the refusal, and get them again.
    let (records, ids) = (cluster.read(topic), log.ids());
    assert!(log.ids_up_to(*log.published.borrow()).len() <= 9, "the relay goes no further");
    let same = |id: &String| id.split_once('/').map(|(thing, _)| thing) == ids[9].split_once('/').map(|(thing, _)| thing);
    for waiting in ids[9..].iter().filter(|id| same(id)) {
        assert!(records.iter().all(|record| record.id() != *waiting), "{waiting} waits");
    }
    assert_in_order(records.iter().map(Record::id));

    limit(&cluster, topic, "1000000").await;
    cluster.publish(topic, &log).await;
    let records = cluster.read(topic);
    assert_all(&log, records.iter().map(Record::id));
    assert_in_order(records.iter().map(Record::id));
}

#[tokio::test]
async fn an_event_that_is_too_large_is_named_before_it_is_sent_and_holds_the_rest_back() {
    let cluster = Cluster::new();
    let (topic, mut log) = (cluster.new_topic(), Log::new(3));
    cluster.publish(topic, &log).await;
    log.append(1);
    log.ballast = 1_100_000;
    let large = log.ids().pop().expect("an event");
    let named = dev::wait::until("the event is named", async || {
        logged().lines().any(|line| line.contains(&format!("the event {large} has 1100")) && line.contains(topic))
    });
    cluster.relaying(topic, &log, named).await;
    assert_eq!(log.ids_up_to(*log.published.borrow()).len(), 3);
    assert_eq!(crate::cluster::read(&cluster.brokers(), topic).len(), 3, "it was not sent");

    // The operator raises the limits.
    if cluster.mock.is_some() {
        let variable = ("KAFKA_MESSAGE_MAX_BYTES".to_owned(), "2000000".to_owned());
        let settings = KafkaSettings::new(cluster.brokers());
        let broker = kafka::Cluster::with_variables(settings, [variable]).expect("right");
        let wakeups = Wakeups::default();
        tokio::select! {
            never = broker.publish(topic, SOURCE, &log, &wakeups) => match never {},
            () = log.until_published() => {}
            () = tokio::time::sleep(Duration::from_secs(50)) => panic!("not published"),
        }
    }
}

#[tokio::test]
async fn a_topic_is_made_as_the_variables_say_and_forgets_a_key_only_if_it_is_compacted() {
    let cluster = Cluster::new();
    if cluster.mock.is_some() {
        eprintln!("skipped: the mock cluster cannot create a topic");
        return;
    }
    for policy in ["compact", "delete"] {
        let (topic, log) = (new_name("topic"), Log::new(20));
        let mut settings = KafkaSettings::new(cluster.brokers());
        settings.topics.prefix = "prefix.".to_owned();
        settings.topics.partitions = 5;
        settings.topics.cleanup_policy = Some(policy.to_owned());
        settings.topics.retention = Some(Duration::from_secs(3600));
        let broker = kafka::Cluster::with_variables(settings, []).expect("right");
        broker.run(topic, &TopicCommand::Create).await.expect("created");
        broker.run(topic, &TopicCommand::Create).await.expect("it exists already");
        let wakeups = Wakeups::default();
        tokio::select! {
            never = broker.publish(topic, SOURCE, &log, &wakeups) => match never {},
            () = log.until_published() => {}
        }
        let name = format!("prefix.{topic}");
        let reader: BaseConsumer = config(&cluster.brokers()).set("group.id", "none").create().expect("a reader");
        let metadata = reader.fetch_metadata(Some(&name), PATIENCE).expect("metadata");
        assert_eq!(metadata.topics()[0].partitions().len(), 5);

        let id = log.ids()[0].split_once('/').expect("an event's id").0.parse().expect("a UUID");
        let erased = broker.run(topic, &TopicCommand::Erase { ids: vec![id] }).await;
        if policy == "delete" {
            let error = erased.expect_err("its records cannot be forgotten");
            assert!(error.contains("is not compacted"), "{error}");
            continue;
        }
        erased.expect("erased");
        // The key's last record is the tombstone, in the partition of its events.
        let records = crate::cluster::read(&cluster.brokers(), &name);
        let of_key: Vec<_> = records.iter().filter(|record| record.key == id.to_string()).collect();
        assert_eq!((records.len(), of_key.len()), (21, 5));
        assert_eq!(of_key[4].value, "");
    }
}
