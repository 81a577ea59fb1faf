//! Takes the events of a topic, as a member of a consumer group, and hands them to those who know what they mean.
//!
//! A place in the topic is committed when everything before it has been applied, so a crash or a rebalance repeats events
//! and loses none.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout, timeout_at};

use super::Brokers;
use super::connection::{Client, Listener, Pauses, Trouble, config};
use crate::events::consumer::{Inbox, Received, observe, storable};
use crate::http::request::chain;

/// Events applied at once.
const BATCH: usize = 200;
/// A topic from which nothing came for so long has been read to its end.
const IDLE: Duration = Duration::from_secs(5);
/// How often the consumer looks for a topic that does not exist yet, and for new partitions.
const LOOK: Duration = Duration::from_secs(10);
/// How long the group waits for a member that fell silent.
const SESSION: Duration = Duration::from_secs(10);
/// How long whoever drops a member waits until it has left its group. Others get its partitions then, not after [`SESSION`].
const LEAVE: Duration = Duration::from_secs(1);
/// The pause after an error: the listener has heard of it, and librdkafka deals with all but those it calls fatal.
const BREATH: Duration = Duration::from_millis(50);

/// Why nothing was consumed for a moment.
#[derive(Debug, thiserror::Error)]
enum ConsumeError<E> {
    #[error("the client could not be made, or failed")]
    Client(#[from] KafkaError),
    #[error("the client cannot go on: {1}")]
    Fatal(#[source] RDKafkaErrorCode, String),
    #[error("events of the topic could not be applied")]
    Inbox(#[source] E),
}

/// Hands the inbox all events of `topic`, in the name of the consumer group `group`, for ever: from the place that the group
/// committed, or from the start of the topic. Members of one group share the partitions.
///
/// It can be dropped anywhere: what was not committed comes again, to this member or to another one.
pub async fn consume<I: Inbox>(brokers: &Brokers, group: &str, topic: &'static str, inbox: &I) -> Infallible {
    let trouble = Trouble::new(topic, "consumed");
    let mut pauses = Pauses::default();
    loop {
        let Err(error) = consume_until_failure(brokers, group, topic, inbox, &trouble, &mut pauses).await;
        trouble.say(chain(&error));
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
        trouble.over();
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
        // Nothing is committed but by `commit`.
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", LOOK.as_millis().to_string())
        // Fetched ahead: a few batches, where the default is a hundred thousand events of each partition.
        .set("queued.min.messages", (BATCH * 5).to_string())
        .create_with_context(Listener(trouble.clone()))?;
    consumer.subscribe(&[topic])?;
    Ok(Client::new(consumer).leaving_within(LEAVE))
}

struct Member<'a> {
    topic: &'static str,
    client: Client<StreamConsumer<Listener>>,
    trouble: &'a Trouble,
}

/// Events in the order in which they came, and where each partition goes on behind them.
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
    /// What is there, waiting for the first event of it; `None` if none came for a while.
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

    /// Has the batch applied, however often it takes.
    async fn apply<I: Inbox>(&self, inbox: &I, batch: &mut Batch) -> Result<(), ConsumeError<I::Error>> {
        let mut pauses = Pauses::default();
        let mut held = false;
        while let Err(error) = inbox.apply(&batch.events, None).await {
            self.trouble.say(chain(&ConsumeError::Inbox(error)));
            self.hold(batch, Instant::now() + pauses.next()).await?;
            held = true;
        }
        if held {
            self.client.resume(&self.client.assignment()?)?;
        }
        Ok(())
    }

    /// Waits without leaving the group. A member that does not poll would hold up every rebalance of the group, and be
    /// thrown out of it after a while; so it polls, and pauses its partitions in order to get nothing. What comes all the
    /// same is of a partition assigned since: it goes behind the rest.
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

    /// Commits the places behind the batch, without waiting: if it fails, the batch comes again. So it does if a partition
    /// went to another member meanwhile, who started from the place before.
    fn commit(&self, batch: &Batch) -> Result<(), KafkaError> {
        let mut places = TopicPartitionList::new();
        for (partition, offset) in &batch.next {
            places.add_partition_offset(self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.client.commit(&places, CommitMode::Async)
    }
}

/// Reads a CloudEvent in binary mode. What is none keeps the place where it lies as its id, and has no type.
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

/// Anybody may write to a topic, and anything: what is no text is made one.
fn text(bytes: &[u8]) -> String {
    storable(&String::from_utf8_lossy(bytes))
}
