//! The exchange of a topic, and the stream that keeps its events.

use chassis::events::RabbitmqSettings;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer, ExchangeKind};
use tokio::time::{Duration, timeout};

use super::connection::{answer, is};
use super::message::{self, Message, NoOffset};
use super::place::Place;

/// The most events handed over at once.
const BATCH: usize = 200;
/// How many events the server sends ahead of the acknowledgements.
const AHEAD: u16 = 400;

/// How long a stream that says it is empty may take to deliver a message after all.
const EMPTY: Duration = Duration::from_secs(1);

/// Why nothing is read from a stream now.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Client(#[from] lapin::Error),
    #[error("the queue {0} does not exist yet: the other service creates it when it publishes to this server")]
    Missing(String),
    #[error("the server ended the reading of {0}")]
    Cancelled(String),
    #[error("the server delivers nothing from {0}, which has {1} messages")]
    Silent(String, u32),
    #[error(transparent)]
    NoStream(#[from] NoOffset),
}

/// The name of the stream of a topic.
pub(super) fn name(topic: &str) -> String {
    format!("{topic}.events")
}

/// Whether the topic has its exchange and its stream.
pub(super) async fn exists(connection: &Connection, topic: &str) -> Result<bool, lapin::Error> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let channel = connection.create_channel().await?;
    let found = channel.exchange_declare(topic.into(), ExchangeKind::Topic, options, FieldTable::default()).await;
    match found {
        Err(error) if is(&error, &AMQPSoftError::NOTFOUND) => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(count(connection, &name(topic)).await?.is_some()),
    }
}

/// Creates what is missing of the exchange, the stream, and the binding that brings every event from one to the other.
pub(super) async fn create(connection: &Connection, topic: &str, settings: &RabbitmqSettings) -> Result<(), lapin::Error> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let channel = connection.create_channel().await?;
    channel.exchange_declare(topic.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
    let stream = name(topic);
    // The settings are those of a new stream. Of an existing one, the operator's policy changes them.
    if count(connection, &stream).await?.is_none() {
        channel.queue_declare(stream.as_str().into(), QueueDeclareOptions::durable(), arguments(settings)).await?;
        tracing::info!(stream, "the stream was created");
    }
    let (queue, all) = (stream.as_str().into(), "#".into());
    channel.queue_bind(queue, topic.into(), all, QueueBindOptions::default(), FieldTable::default()).await
}

fn arguments(settings: &RabbitmqSettings) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    if let Some(age) = settings.max_age {
        arguments.insert("x-max-age".into(), AMQPValue::LongString(format!("{}s", age.as_secs()).into()));
    }
    if let Some(bytes) = settings.max_bytes {
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(i64::try_from(bytes).unwrap_or(i64::MAX)));
        // Whole segments are deleted. One holds 500 MB by default, so less would delete nothing.
        let segment = i64::try_from(bytes / 4).unwrap_or(i64::MAX).clamp(1, 500_000_000);
        arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(segment));
    }
    arguments
}

/// About how many messages the stream has, up to some seconds ago; `None` if it does not exist.
async fn count(connection: &Connection, stream: &str) -> Result<Option<u32>, lapin::Error> {
    // A failure closes the channel.
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions::durable().passive();
    match channel.queue_declare(stream.into(), options, FieldTable::default()).await {
        Ok(queue) => Ok(Some(queue.message_count())),
        Err(error) if is(&error, &AMQPSoftError::NOTFOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the reading of a stream begins.
pub(super) enum Begin {
    First,
    /// The last message, or one that was stored with it.
    Last,
    Offset(i64),
}

impl Begin {
    fn argument(&self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Offset(offset) => AMQPValue::LongLongInt(*offset),
        }
    }
}

/// A stream that is read.
pub(super) struct Reader<'a> {
    connection: &'a Connection,
    stream: &'a str,
    channel: Channel,
    consumer: Consumer,
}

impl<'a> Reader<'a> {
    pub(super) async fn open(connection: &'a Connection, stream: &'a str, begin: &Begin) -> Result<Self, ReadError> {
        if answer(count(connection, stream)).await?.is_none() {
            return Err(ReadError::Missing(stream.to_owned()));
        }
        let (channel, consumer) = answer(subscribe(connection, stream, begin)).await?;
        Ok(Self { connection, stream, channel, consumer })
    }

    /// Waits for a message and takes those that have arrived with it; none if there was none within `patience`.
    pub(super) async fn receive(&mut self, patience: Duration) -> Result<Vec<Message>, ReadError> {
        let Ok(first) = timeout(patience, self.consumer.next()).await else { return Ok(Vec::new()) };
        let mut next = Some(first);
        let mut messages = Vec::new();
        while let Some(delivery) = next {
            let delivery = delivery.ok_or_else(|| ReadError::Cancelled(self.stream.to_owned()))??;
            messages.push(message::read(&delivery, self.stream)?);
            next = if messages.len() < BATCH { self.consumer.next().now_or_never() } else { None };
        }
        Ok(messages)
    }

    /// Has the server send so many more messages.
    pub(super) async fn acknowledge(&self, up_to: u64) -> Result<(), ReadError> {
        Ok(answer(self.channel.basic_ack(up_to, BasicAckOptions { multiple: true })).await?)
    }

    /// About how many messages the stream has. The answer proves that the server still serves the stream.
    pub(super) async fn count(&self) -> Result<u32, ReadError> {
        answer(count(self.connection, self.stream)).await?.ok_or_else(|| ReadError::Missing(self.stream.to_owned()))
    }
}

async fn subscribe(connection: &Connection, stream: &str, begin: &Begin) -> Result<(Channel, Consumer), lapin::Error> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(AHEAD, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), begin.argument());
    let consumer = channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), arguments).await?;
    Ok((channel, consumer))
}

/// Whether the stream of the topic has never had a message: it is new, or was made anew. A client that may not read it does
/// not know.
pub(super) async fn is_unused(connection: &Connection, topic: &str) -> Result<bool, ReadError> {
    let stream = name(topic);
    if answer(count(connection, &stream)).await? != Some(0) {
        return Ok(false);
    }
    match first(connection, &stream, EMPTY).await {
        Err(ReadError::Client(error)) if is(&error, &AMQPSoftError::ACCESSREFUSED) => Ok(false),
        first => Ok(first? == Place::Start),
    }
}

/// The place of the first message that the stream still has. A stream that does not exist yet has none.
pub(super) async fn first(connection: &Connection, stream: &str, patience: Duration) -> Result<Place, ReadError> {
    let mut reader = match Reader::open(connection, stream, &Begin::First).await {
        Err(ReadError::Missing(_)) => return Ok(Place::Start),
        reader => reader?,
    };
    // An empty stream needs no long wait. The count may be some seconds old.
    let patience = if reader.count().await? == 0 { patience.min(EMPTY) } else { patience };
    place_of_first(&mut reader, patience).await
}

/// A place near the end of the stream: every message behind it is still there.
pub(super) async fn end(connection: &Connection, stream: &str, patience: Duration) -> Result<Place, ReadError> {
    place_of_first(&mut Reader::open(connection, stream, &Begin::Last).await?, patience).await
}

/// The place of the first message that the reader gets.
async fn place_of_first(reader: &mut Reader<'_>, patience: Duration) -> Result<Place, ReadError> {
    match reader.receive(patience).await?.first() {
        Some(message) => Ok(message.place()),
        None => match reader.count().await? {
            0 => Ok(Place::Start),
            count => Err(ReadError::Silent(reader.stream.to_owned(), count)),
        },
    }
}
