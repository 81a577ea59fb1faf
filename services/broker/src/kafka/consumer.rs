//! Reads the events of a topic, as a member of a consumer group, and hands them to an inbox.
//!
//! A position is committed when every event before it has been applied. So a crash or a rebalance may repeat events, but
//! loses none.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::consumer::{Inbox, Received, observe, storable};
use chassis::events::{Brokers, Pauses, Trouble};
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Client, Listener, config};

/// The most events applied at once.
const BATCH: usize = 200;
/// After this time without an event, the topic counts as read to its end.
const IDLE: Duration = Duration::from_secs(5);
/// How often the consumer looks for a topic that does not exist yet, and for new partitions.
const LOOK: Duration = Duration::from_secs(10);
/// How long the group waits for a silent member.
const SESSION: Duration = Duration::from_secs(10);
/// How long the drop of a member waits until it has left its group. Then other members get its partitions at once, not after
/// [`SESSION`].
const LEAVE: Duration = Duration::from_secs(1);
/// The pause after an error. The listener has logged the error, and librdkafka recovers from all but the fatal ones.
const BREATH: Duration = Duration::from_millis(50);

/// Why nothing is consumed now.
#[derive(Debug, thiserror::Error)]
enum ConsumeError<E> {
    #[error("the Kafka client failed")]
    Client(#[from] KafkaError),
    #[error("the Kafka client stopped: {1}")]
    Fatal(#[source] RDKafkaErrorCode, String),
    #[error("events of the topic could not be applied")]
    Inbox(#[source] E),
}

/// Hands the inbox all events of `topic` for ever, as a member of the consumer group `group`. It starts at the position that
/// the group committed, or at the start of the topic. Members of one group share the partitions.
///
/// It can be dropped at any point: events that were not committed are read again, by this member or by another.
pub async fn consume<I: Inbox>(brokers: &Brokers, group: &str, topic: &'static str, inbox: &I) -> Infallible {
    let trouble = Arc::new(Trouble::new(topic, "consumed"));
    let mut pauses = Pauses::default();
    loop {
        let Err(error) = consume_until_failure(brokers, group, topic, inbox, &trouble, &mut pauses).await;
        trouble.report(chain(&error));
        tokio::time::sleep(pauses.next()).await;
    }
}

async fn consume_until_failure<I: Inbox>(
    brokers: &Brokers,
    group: &str,
    topic: &'static str,
    inbox: &I,
    trouble: &Arc<Trouble>,
    pauses: &mut Pauses,
) -> Result<Infallible, ConsumeError<I::Error>> {
    let member = Member { topic, client: join(brokers, group, topic, trouble)?, trouble };
    loop {
        let Some(mut batch) = member.receive().await? else {
            observe(topic, &[]);
            continue;
        };
        member.apply(inbox, &mut batch).await?;
        member.commit(&batch)?;
        observe(topic, &batch.events);
        trouble.end();
        *pauses = Pauses::default();
    }
}

fn join(
    brokers: &Brokers,
    group: &str,
    topic: &'static str,
    trouble: &Arc<Trouble>,
) -> Result<Client<StreamConsumer<Listener>>, KafkaError> {
    let consumer: StreamConsumer<Listener> = config(brokers)
        .set("group.id", group)
        .set("session.timeout.ms", SESSION.as_millis().to_string())
        // Only `commit` commits.
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", LOOK.as_millis().to_string())
        // A few batches ahead. The default is a hundred thousand events of each partition.
        .set("queued.min.messages", (BATCH * 5).to_string())
        .create_with_context(Listener(trouble.clone()))?;
    consumer.subscribe(&[topic])?;
    Ok(Client::new(consumer, LEAVE))
}

struct Member<'a> {
    topic: &'static str,
    client: Client<StreamConsumer<Listener>>,
    trouble: &'a Trouble,
}

/// Events in the order of their arrival, and the next offset of each partition.
#[derive(Default)]
struct Batch {
    events: Vec<Received>,
    next: BTreeMap<i32, i64>,
}

impl Batch {
    fn push(&mut self, message: &BorrowedMessage<'_>) {
        self.next.insert(message.partition(), message.offset() + 1);
        self.events.push(read(message));
    }
}

impl Member<'_> {
    /// Waits for an event and takes those that have arrived with it; `None` if there was none for [`IDLE`].
    async fn receive<E>(&self) -> Result<Option<Batch>, ConsumeError<E>> {
        if let Some((code, reason)) = self.client.client().fatal_error() {
            return Err(ConsumeError::Fatal(code, reason));
        }
        let mut batch = Batch::default();
        match timeout(IDLE, self.client.recv()).await {
            Ok(Ok(message)) => batch.push(&message),
            Ok(Err(_)) => {
                tokio::time::sleep(BREATH).await;
                return Ok(None);
            }
            Err(_) => return Ok(None),
        }
        while batch.events.len() < BATCH
            && let Some(Ok(message)) = self.client.recv().now_or_never()
        {
            batch.push(&message);
        }
        Ok(Some(batch))
    }

    /// Has the batch applied, and tries again until it is.
    async fn apply<I: Inbox>(&self, inbox: &I, batch: &mut Batch) -> Result<(), ConsumeError<I::Error>> {
        let mut pauses = Pauses::default();
        let mut held = false;
        while let Err(error) = inbox.apply(&batch.events, None).await {
            self.trouble.report(chain(&ConsumeError::Inbox(error)));
            self.hold(batch, Instant::now() + pauses.next()).await?;
            held = true;
        }
        if held {
            self.client.resume(&self.client.assignment()?)?;
        }
        Ok(())
    }

    /// Waits without leaving the group. A member that does not poll delays every rebalance and is removed from the group
    /// after a while. So it polls, with its partitions paused. An event that still arrives belongs to a partition assigned
    /// since, and goes to the end of the batch.
    async fn hold(&self, batch: &mut Batch, until: Instant) -> Result<(), KafkaError> {
        loop {
            self.client.pause(&self.client.assignment()?)?;
            match timeout_at(until, self.client.recv()).await {
                Ok(Ok(message)) => batch.push(&message),
                Ok(Err(_)) => tokio::time::sleep(BREATH).await,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Commits the positions behind the batch, without waiting. If this fails, or a partition has moved to another member
    /// meanwhile, the batch is read again.
    fn commit(&self, batch: &Batch) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in &batch.next {
            offsets.add_partition_offset(self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.client.commit(&offsets, CommitMode::Async)
    }
}

/// Reads a CloudEvent in binary mode. A message that is not one gets its place in the topic as its id, and no type.
fn read(message: &BorrowedMessage<'_>) -> Received {
    let header = |name: &str| {
        let header = message.headers()?.iter().find(|header| header.key == name)?;
        header.value.map(text)
    };
    Received {
        id: header("ce_id").unwrap_or_else(|| format!("{}/{}/{}", message.topic(), message.partition(), message.offset())),
        r#type: header("ce_type").unwrap_or_default(),
        time: header("ce_time")
            .and_then(|time| DateTime::parse_from_rfc3339(&time).ok())
            .map(|time| time.with_timezone(&Utc)),
        data: message.payload().map(text).unwrap_or_default(),
    }
}

/// A topic may contain any bytes: they are made a text that can be stored.
fn text(bytes: &[u8]) -> String {
    storable(&String::from_utf8_lossy(bytes))
}
