//! Events from the topic `orders`. The place of each partition is its next offset. It is stored here, with the events, and
//! not in a consumer group.

use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::time::{Instant, timeout_at};

use crate::event::Event;
use crate::store::Store;

/// How long the brokers may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often to look for partitions that were added.
const LOOK: Duration = Duration::from_secs(300);

pub async fn read(brokers: &str, topic: &str, store: &Store) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "notifications").set("enable.auto.commit", "false");
    // A place that is gone is an error, and no reason to go on somewhere else in silence.
    let consumer: StreamConsumer = config.set("auto.offset.reset", "error").set("fetch.queue.backoff.ms", "10").create()?;
    let metadata = tokio::task::block_in_place(|| consumer.fetch_metadata(Some(topic), ANSWER))?;
    let mut places = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        let next =
            store.place(&format!("kafka/{}", partition.id()))?.map(|next| next.parse().map(Offset::Offset)).transpose()?;
        places.add_partition_offset(topic, partition.id(), next.unwrap_or(Offset::Beginning))?;
    }
    ensure!(places.count() > 0, "the topic {topic} does not exist: orders creates it when it publishes");
    consumer.assign(&places)?;
    let end = Instant::now() + LOOK;
    while let Ok(message) = timeout_at(end, consumer.recv()).await {
        if let Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) = message {
            return store.lost("kafka", "the topic has no event any more at the offset that is next");
        }
        let message = message?;
        let (source, next) = (format!("kafka/{}", message.partition()), message.offset() + 1);
        store.receive(&[event(&message)], &source, &next.to_string())?;
    }
    Ok(())
}

fn event(message: &BorrowedMessage<'_>) -> Event {
    let attribute = |name: &str| {
        let header = message.headers()?.iter().find(|header| header.key.strip_prefix("ce_") == Some(name))?;
        header.value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let place = format!("{}/{}/{}", message.topic(), message.partition(), message.offset());
    Event::binary(attribute, message.payload().unwrap_or_default(), place)
}
