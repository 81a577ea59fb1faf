//! Publishes a service's own event log to an exchange.
//!
//! Events are sent in the log's order, and a position of the log is stored once the server has confirmed every event up to
//! it. So the events of one subject first appear in their order. A failure or a restart repeats some of them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::{CloudEvent, LoggedEvent, Outbox, Pauses, Position, RabbitmqSettings, RelayLag, Trouble, Wakeups};
use chassis::traces::publishing;
use futures_util::TryFutureExt;
use futures_util::future::try_join;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, PublisherConfirm};
use tokio::time::{Instant, timeout};

use super::connection::{ANSWER, ConnectError, answer, connect};
use super::stream::ReadError;
use super::{message, stream};

/// The most events published at once.
const BATCH: i64 = 1000;
/// How long one poll of the log waits for new events.
const WAIT: Duration = Duration::from_secs(10);
/// How often the relay looks whether the stream is still there. If other queues are bound to the exchange, the server
/// confirms events without it.
const LOOK: Duration = Duration::from_secs(10);
/// The pause between two polls.
const BREATH: Duration = Duration::from_millis(50);

/// Why nothing is published now.
#[derive(Debug, thiserror::Error)]
enum RelayError<E> {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the exchange and the stream of the events could not be found or created")]
    Stream(#[source] lapin::Error),
    #[error("the stream of the events could not be looked into")]
    Look(#[from] ReadError),
    #[error("the exchange or the stream of the events is gone")]
    Gone,
    #[error("the event log could not be read, or its cursor not stored")]
    Outbox(#[source] E),
    #[error("RabbitMQ did not take the event {id} ({bytes} bytes), or one sent with it")]
    Refused { id: String, bytes: usize, source: Refusal },
}

/// Why an event is not published.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Client(#[from] lapin::Error),
    #[error("no queue is bound to the exchange: {0}")]
    Unroutable(String),
    #[error("a queue refused it")]
    Negative,
    #[error("there was no confirmation within {ANSWER:?}")]
    Late,
}

/// Publishes the events of `outbox` to the exchange `topic`, as `source`, for ever. Exchange and stream are created if they
/// are missing.
///
/// Only one relay of a log may run at a time. It can be dropped at any point: the next one starts at the stored position,
/// and repeats the events behind it.
pub(super) async fn relay<O: Outbox>(
    settings: &RabbitmqSettings,
    topic: &'static str,
    source: &'static str,
    outbox: &O,
    wakeups: &Wakeups,
) -> Infallible {
    let trouble = Trouble::new(topic, "published");
    let lag = RelayLag::begin(topic, "rabbitmq");
    let pauses = Pauses::default();
    let mut relay = Relay { settings, topic, source, outbox, wakeups, trouble, lag, pauses, doubt: false };
    loop {
        let Err(error) = relay.publish_until_failure().await;
        relay.trouble.report(chain(&error));
        relay.doubt = true;
        tokio::time::sleep(relay.pauses.next()).await;
    }
}

struct Relay<'a, O> {
    settings: &'a RabbitmqSettings,
    topic: &'static str,
    source: &'static str,
    outbox: &'a O,
    wakeups: &'a Wakeups,
    trouble: Trouble,
    lag: RelayLag,
    pauses: Pauses,
    /// Something failed just now. Exchange, stream and binding are created again, whatever of them is there, and events are
    /// sent one by one, so that a refusal names the right one.
    doubt: bool,
}

impl<O: Outbox> Relay<'_, O> {
    /// Publishes from the stored position on, until anything fails. The next attempt has a new connection and starts at the
    /// stored position. What the server still has of the old one is the start of the same events, so the order of first
    /// appearances holds.
    async fn publish_until_failure(&mut self) -> Result<Infallible, RelayError<O::Error>> {
        let mut after = self.outbox.published().await.map_err(RelayError::Outbox)?;
        // Before the first call to the server, so that the lag grows while the server is away.
        let oldest = self.outbox.read(after, 1).await.map_err(RelayError::Outbox)?;
        self.observe(&oldest);
        let connection = connect(self.settings, format!("{}: relay", self.topic)).await?;
        let channel = self.open(&connection).await.map_err(RelayError::Stream)?;
        if after != Position::default() && stream::is_unused(&connection, self.topic).await? {
            tracing::warn!(topic = self.topic, "the stream was made anew: it gets the log from its beginning");
            after = Position::default();
        }
        let mut looked = Instant::now();
        let mut events = Vec::new();
        loop {
            if events.is_empty() {
                let read = || self.outbox.read(after, BATCH);
                events = self.wakeups.poll(WAIT, read).await.map_err(RelayError::Outbox)?;
                self.observe(&events);
            }
            if looked.elapsed() >= LOOK {
                if !answer(stream::exists(&connection, self.topic)).await.map_err(RelayError::Stream)? {
                    return Err(RelayError::Gone);
                }
                looked = Instant::now();
            }
            let Some(last) = events.last().map(|(position, _)| *position) else {
                // The poll returns at once when the service stops.
                tokio::time::sleep(BREATH).await;
                continue;
            };
            // The next events are read while these are on their way.
            let next = self.outbox.read(last, BATCH).map_err(RelayError::Outbox);
            (events, ()) = try_join(next, self.publish(&channel, events)).await?;
            after = last;
            self.observe(&events);
            self.trouble.end();
            self.pauses = Pauses::default();
            self.doubt = false;
        }
    }

    /// Notes the oldest of the events that are to be published.
    fn observe(&self, unpublished: &[(Position, LoggedEvent)]) {
        self.lag.observe(unpublished.first().map(|(_, event)| event.occurred_at));
    }

    async fn open(&self, connection: &Connection) -> Result<Channel, lapin::Error> {
        self.find_or_create(connection).await?;
        let channel = answer(connection.create_channel()).await?;
        answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Asks first, because a right to publish does not include the right to create.
    async fn find_or_create(&self, connection: &Connection) -> Result<(), lapin::Error> {
        match answer(stream::exists(connection, self.topic)).await? {
            true if !self.doubt => Ok(()),
            found => match answer(stream::create(connection, self.topic, self.settings)).await {
                // The relay may have no right to do it, and there may be no need.
                Err(_) if found => Ok(()),
                created => created,
            },
        }
    }

    /// Sends the events and stores the position up to which all are confirmed.
    async fn publish(&self, channel: &Channel, events: Vec<(Position, LoggedEvent)>) -> Result<(), RelayError<O::Error>> {
        let mut confirmed = None;
        let result = self.confirm(channel, events, &mut confirmed).await;
        if let Some(up_to) = confirmed {
            self.outbox.store_published(up_to).await.map_err(RelayError::Outbox)?;
        }
        result
    }

    /// Sends the events in groups with at most one event of each subject, and waits for a group's confirmations before it
    /// sends the next group. So no event overtakes an earlier one of the same subject that was refused.
    async fn confirm(
        &self,
        channel: &Channel,
        events: Vec<(Position, LoggedEvent)>,
        confirmed: &mut Option<Position>,
    ) -> Result<(), RelayError<O::Error>> {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut subjects = HashSet::new();
            let mut group = Vec::new();
            while let Some((position, event)) = events.next_if(|(_, event)| subjects.insert(event.subject)) {
                let event = event.publish(self.source);
                let (id, bytes) = (event.id.clone(), event.data.get().len());
                let span = publishing("rabbitmq", self.topic, &event);
                let sent = answer(self.send(channel, &event)).await;
                let is_sent = sent.is_ok();
                group.push((position, id, bytes, sent, span));
                if self.doubt || !is_sent {
                    break;
                }
            }
            for (position, id, bytes, sent, span) in group {
                if let Err(source) = check(sent).await {
                    if let Some(span) = span {
                        span.refused();
                    }
                    return Err(RelayError::Refused { id, bytes, source });
                }
                *confirmed = Some(position);
                metrics::counter!("events_published_total", "topic" => self.topic, "via" => "rabbitmq").increment(1);
            }
        }
        Ok(())
    }

    async fn send(&self, channel: &Channel, event: &CloudEvent) -> Result<PublisherConfirm, lapin::Error> {
        // An event that no queue takes is returned. It would be lost otherwise.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (self.topic.into(), event.r#type.as_str().into());
        channel.basic_publish(exchange, key, options, event.data.get().as_bytes(), message::properties(event)).await
    }
}

/// Waits for the confirmation.
async fn check(sent: Result<PublisherConfirm, lapin::Error>) -> Result<(), Refusal> {
    match timeout(ANSWER, sent?).await.map_err(|_| Refusal::Late)?? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) => Err(Refusal::Unroutable(returned.reply_text.to_string())),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(Refusal::Negative),
    }
}
