//! Reads the events of a stream, and hands them to an inbox.
//!
//! The inbox stores the place behind the events together with their effects, so the server keeps no place of a consumer. A
//! crash repeats events, but loses none.

use std::convert::Infallible;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::consumer::{Cursor, Follower, Inbox, Received};
use chassis::events::{Pauses, RabbitmqSettings, Trouble};
use lapin::Connection;

use super::connection::{ConnectError, connect};
use super::message::Message;
use super::place::Place;
use super::stream::{self, Begin, ReadError, Reader};

/// After this time without an event, the server is asked whether it still serves the stream.
const IDLE: Duration = Duration::from_secs(3);
/// How long the server may take to deliver a message that the stream has.
const DELIVERY: Duration = Duration::from_secs(10);

/// Why nothing is consumed now.
#[derive(Debug, thiserror::Error)]
enum ConsumeError<E> {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the stream cannot be read")]
    Read(#[from] ReadError),
    #[error("events of the stream could not be applied")]
    Inbox(#[source] E),
    #[error("no event has been read yet, and the present state could not be read")]
    Fill(#[source] E),
    #[error("events left the stream before they were read, and what they changed could not be read anew")]
    Refill(#[source] E),
    /// Not an obstacle: the inbox is refilled next.
    #[error("{0}")]
    Lost(String),
}

/// Hands the inbox all events of `topic` for ever. It starts at the place that the inbox has stored, or at the start of the
/// stream. Only one consumer may do this for an inbox at a time; `group` names it to the server.
///
/// It can be dropped at any point: events whose place was not stored are read again.
pub(super) async fn consume<I: Inbox>(
    settings: &RabbitmqSettings,
    group: &str,
    topic: &'static str,
    inbox: &I,
) -> Infallible {
    let (stream, log) = (stream::name(topic), format!("{topic}' stream"));
    let consumer = Consumer {
        settings,
        name: format!("{group}: consumer of {topic}"),
        stream,
        log,
        inbox,
        follower: Follower::begin(topic),
        trouble: Trouble::new(topic, "consumed"),
    };
    let mut pauses = Pauses::default();
    loop {
        let Err(error) = consumer.consume_until_failure(&mut pauses).await;
        let error = match error {
            ConsumeError::Lost(reason) => consumer.refill(&reason).await.err(),
            error => Some(error),
        };
        error.into_iter().for_each(|error| consumer.trouble.report(chain(&error)));
        tokio::time::sleep(pauses.next()).await;
    }
}

struct Consumer<'a, I> {
    settings: &'a RabbitmqSettings,
    name: String,
    stream: String,
    /// The name of the stored place.
    log: String,
    inbox: &'a I,
    follower: Follower,
    trouble: Trouble,
}

impl<I: Inbox> Consumer<'_, I> {
    async fn connect(&self) -> Result<Connection, ConnectError> {
        connect(self.settings, self.name.clone()).await
    }

    async fn consume_until_failure(&self, pauses: &mut Pauses) -> Result<Infallible, ConsumeError<I::Error>> {
        let connection = self.connect().await?;
        let place = self.place(&connection).await?;
        let begin = match &place {
            Place::Start => Begin::First,
            Place::After { offset, .. } => Begin::Offset(*offset),
        };
        let mut reader = Reader::open(&connection, &self.stream, &begin).await?;
        // The message at the place comes first, as the proof that nothing is lost. It has been applied.
        let mut messages = match place {
            Place::Start => Vec::new(),
            place => self.prove(&mut reader, &place).await?,
        };
        let mut next_is_first = matches!(begin, Begin::First);
        loop {
            if messages.is_empty() {
                messages = reader.receive(IDLE).await?;
            }
            let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
                reader.count().await?;
                self.follower.observe(&[]);
                self.recovered(pauses);
                continue;
            };
            if next_is_first && first.offset > 0 {
                return Err(ConsumeError::Lost(format!("{} begins at offset {}", self.stream, first.offset)));
            }
            next_is_first = false;
            let (up_to, last) = (last.place(), last.tag);
            let events: Vec<Received> = messages.into_iter().map(|message| message.event).collect();
            self.apply(&events, &up_to).await;
            reader.acknowledge(last).await?;
            self.follower.observe(&events);
            self.recovered(pauses);
            messages = Vec::new();
        }
    }

    fn recovered(&self, pauses: &mut Pauses) {
        self.trouble.end();
        *pauses = Pauses::default();
    }

    /// The stored place. An inbox without one is filled first. Then it gets all events of the stream; if the stream has lost
    /// its first ones by then, those from its present end on.
    async fn place(&self, connection: &Connection) -> Result<Place, ConsumeError<I::Error>> {
        if let Some(stored) = self.inbox.cursor(&self.log).await.map_err(ConsumeError::Inbox)? {
            return stored.parse().map_err(|error| ConsumeError::Lost(chain(&error)));
        }
        let place = match stream::first(connection, &self.stream, DELIVERY).await? {
            Place::Start | Place::After { offset: 0, .. } => Place::Start,
            Place::After { .. } => stream::end(connection, &self.stream, DELIVERY).await?,
        };
        self.inbox.refill().await.map_err(ConsumeError::Fill)?;
        self.store(&place).await.map_err(ConsumeError::Inbox)?;
        Ok(place)
    }

    /// Receives the message at the place, and those that came with it: they are returned.
    async fn prove(&self, reader: &mut Reader<'_>, place: &Place) -> Result<Vec<Message>, ConsumeError<I::Error>> {
        let mut messages = reader.receive(DELIVERY).await?;
        match messages.first().map(Message::place) {
            Some(first) if first == *place => {
                reader.acknowledge(messages.remove(0).tag).await?;
                Ok(messages)
            }
            Some(first) => Err(ConsumeError::Lost(format!("{} has `{first}` in the place of `{place}`", self.stream))),
            None => Err(ConsumeError::Lost(format!("{} has no `{place}` any more", self.stream))),
        }
    }

    /// Has the events applied, and tries again until they are.
    async fn apply(&self, events: &[Received], up_to: &Place) {
        let (mut pauses, value) = (Pauses::default(), up_to.to_string());
        let cursor = Cursor { log: &self.log, value: &value };
        while let Err(error) = self.inbox.apply(events, Some(cursor)).await {
            self.trouble.report(chain(&ConsumeError::Inbox(error)));
            tokio::time::sleep(pauses.next()).await;
        }
    }

    async fn store(&self, place: &Place) -> Result<(), I::Error> {
        let value = place.to_string();
        self.inbox.apply(&[], Some(Cursor { log: &self.log, value: &value })).await
    }

    /// Brings the inbox up to date without the lost events. The end of the stream is read first: what is published later
    /// comes from there, and what was published before is in what the inbox is filled with.
    async fn refill(&self, reason: &str) -> Result<(), ConsumeError<I::Error>> {
        let connection = self.connect().await?;
        let end = stream::end(&connection, &self.stream, DELIVERY).await?;
        self.follower.refill(self.inbox, reason).await.map_err(ConsumeError::Refill)?;
        self.store(&end).await.map_err(ConsumeError::Inbox)
    }
}
