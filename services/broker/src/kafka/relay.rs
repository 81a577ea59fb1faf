//! Publishes a service's own event log to a topic.
//!
//! Events are sent in the log's order, with their subject as key, and a position of the log is stored once the broker has
//! confirmed every event up to it. So the events of one subject first appear in their order. A failure or a restart repeats
//! some of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::{CloudEvent, LoggedEvent, Outbox, Pauses, Position, RelayLag, Trouble, Wakeups};
use chassis::traces::publishing;
use futures_util::TryFutureExt;
use futures_util::future::try_join;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::connection::{self, Client, Listener, count_error};
use super::event;
use super::settings::Settings;
use super::topic::{Limits, Topic, TopicError};

/// The most events published at once.
const BATCH: i64 = 1000;
/// How long the brokers may take to confirm an event. A new leader is chosen within 10 s, if the old one is killed.
const CONFIRMATION: Duration = Duration::from_secs(30);
/// How long one poll of the log waits for new events.
const WAIT: Duration = Duration::from_secs(10);
/// The pause between two polls.
const BREATH: Duration = Duration::from_millis(50);
/// How Kafka Streams, Flink and ksqlDB expect the partition of a key to be chosen.
const PARTITIONER: &str = "murmur2_random";
/// The largest record that a producer sends by default.
const LARGEST: usize = 1_000_000;

/// Why nothing is published now.
#[derive(Debug, thiserror::Error)]
enum RelayError<E> {
    #[error("the Kafka client could not be created")]
    Client(#[source] KafkaError),
    #[error("the topic cannot be used")]
    Topic(#[from] TopicError),
    #[error("the event log could not be read, or its cursor not stored")]
    Outbox(#[source] E),
    #[error("the broker did not take the event {0}, or one sent with it")]
    Refused(String, #[source] KafkaError),
    #[error(
        "the event {id} has {size} bytes, and the topic takes {limit}: \
        raise its max.message.bytes and KAFKA_MESSAGE_MAX_BYTES"
    )]
    TooLarge { id: String, size: usize, limit: usize },
}

/// Publishes the events of `outbox` to the topic of `service`, as `source`, for ever. The topic is created if it is missing.
///
/// Only one relay of a log may run at a time. It can be dropped at any point: the next one starts at the stored position,
/// and repeats the events behind it.
pub(super) async fn relay<O: Outbox>(
    settings: &Settings,
    service: &'static str,
    source: &'static str,
    outbox: &O,
    wakeups: &Wakeups,
) -> Infallible {
    let trouble = Arc::new(Trouble::new(service, "published"));
    let (lag, topic) = (RelayLag::begin(service, "kafka"), settings.topic(service));
    let pauses = Pauses::default();
    let mut relay = Relay { settings, service, topic, source, outbox, wakeups, trouble, lag, pauses, doubt: false };
    loop {
        let Err(error) = relay.publish_until_failure().await;
        if let RelayError::TooLarge { .. } = error {
            count_error(service, Some(RDKafkaErrorCode::MessageSizeTooLarge));
        }
        relay.doubt = matches!(error, RelayError::Refused(..));
        relay.trouble.report(chain(&error));
        let pause = relay.pauses.next();
        tokio::time::sleep(pause).await;
    }
}

/// The configuration of a producer of a service's events.
pub(super) fn config(settings: &Settings, service: &str) -> ClientConfig {
    let confirmation = CONFIRMATION.as_millis().to_string();
    let defaults = [
        ("client.id", service),
        ("partitioner", PARTITIONER),
        ("message.timeout.ms", &confirmation),
        // A group is sent at once, without waiting for more events.
        ("queue.buffering.max.ms", "1"),
    ];
    let guarantees = [
        // On a retry, the broker drops what it already has.
        ("enable.idempotence", "true"),
        // No event overtakes an earlier one that was refused: the producer stops, and has sent nothing after it. With more
        // requests in flight, a broker that does not know the producer yet would accept the next one.
        ("enable.gapless.guarantee", "true"),
        ("max.in.flight.requests.per.connection", "1"),
        ("acks", "all"),
        // The relay creates the topic, with its own number of partitions.
        ("allow.auto.create.topics", "false"),
    ];
    connection::config(settings, &defaults, &guarantees)
}

struct Relay<'a, O> {
    settings: &'a Settings,
    service: &'static str,
    topic: String,
    source: &'static str,
    outbox: &'a O,
    wakeups: &'a Wakeups,
    trouble: Arc<Trouble>,
    lag: RelayLag,
    pauses: Pauses,
    /// The broker has refused events just now. They are sent one by one, so that the next refusal names the right one.
    doubt: bool,
}

impl<O: Outbox> Relay<'_, O> {
    /// Publishes from the stored position on, until anything fails. The next attempt has a new producer and starts at the
    /// stored position. What the old producer still delivers is the start of the same events, so the order of first
    /// appearances holds.
    async fn publish_until_failure(&mut self) -> Result<Infallible, RelayError<O::Error>> {
        let mut after = self.outbox.published().await.map_err(RelayError::Outbox)?;
        // Before the first call to the cluster, so that the lag grows while the cluster is away.
        let oldest = self.outbox.read(after, 1).await.map_err(RelayError::Outbox)?;
        self.observe(&oldest);
        let producer = self.producer()?;
        let topic = Topic::new(self.settings, &self.topic, &self.trouble)?;
        let limit = self.prepare(&topic).await?;
        if after != Position::default() && topic.is_unused().await? {
            tracing::warn!(topic = self.topic, "the topic was made anew: it gets the log from its beginning");
            after = Position::default();
        }
        drop(topic);
        let mut events = Vec::new();
        loop {
            if events.is_empty() {
                let read = || self.outbox.read(after, BATCH);
                events = self.wakeups.poll(WAIT, read).await.map_err(RelayError::Outbox)?;
                self.observe(&events);
            }
            let Some(last) = events.last().map(|(position, _)| *position) else {
                // The poll returns at once when the service stops.
                tokio::time::sleep(BREATH).await;
                continue;
            };
            // The next events are read while these are on their way.
            let next = self.outbox.read(last, BATCH).map_err(RelayError::Outbox);
            (events, ()) = try_join(next, self.publish(&producer, limit, events)).await?;
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

    /// The largest record that the topic and the producer take. The topic exists then.
    async fn prepare(&self, topic: &Topic<'_>) -> Result<usize, TopicError> {
        topic.ensure().await?;
        let Limits { record, .. } = topic.limits().await;
        let own = config(self.settings, self.service).get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        let own = own.unwrap_or(LARGEST);
        Ok(record.map_or(own, |record| own.min(record)))
    }

    /// Sends the events and stores the position up to which all are confirmed.
    async fn publish(
        &self,
        producer: &FutureProducer<Listener>,
        limit: usize,
        events: Vec<(Position, LoggedEvent)>,
    ) -> Result<(), RelayError<O::Error>> {
        let mut confirmed = None;
        let result = self.confirm(producer, limit, events, &mut confirmed).await;
        if let Some(up_to) = confirmed {
            self.outbox.store_published(up_to).await.map_err(RelayError::Outbox)?;
        }
        result
    }

    /// Sends the events, and waits for their confirmations in the same order.
    async fn confirm(
        &self,
        producer: &FutureProducer<Listener>,
        limit: usize,
        events: Vec<(Position, LoggedEvent)>,
        confirmed: &mut Option<Position>,
    ) -> Result<(), RelayError<O::Error>> {
        let at_once = if self.doubt { 1 } else { events.len() };
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut sent = Vec::with_capacity(at_once);
            let mut result = Ok(());
            for (position, event) in events.by_ref().take(at_once) {
                let event = event.publish(self.source);
                let span = publishing("kafka", &self.topic, &event);
                match self.send(producer, limit, &event) {
                    Ok(confirmation) => sent.push((position, event.id, confirmation, span)),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            for (position, id, confirmation, span) in sent {
                let refusal = match confirmation.await {
                    Ok(Ok(_)) => None,
                    Ok(Err((error, _))) => Some(error),
                    Err(_) => Some(KafkaError::Canceled),
                };
                if let Some(error) = refusal {
                    if let Some(span) = span {
                        span.refused();
                    }
                    return Err(RelayError::Refused(id, error));
                }
                *confirmed = Some(position);
                metrics::counter!("events_published_total", "topic" => self.service, "via" => "kafka").increment(1);
            }
            result?;
        }
        Ok(())
    }

    /// Sends one event in binary mode. The record's own timestamp is the time of sending: with the event's time, retention
    /// would delete an old event at once.
    fn send(
        &self,
        producer: &FutureProducer<Listener>,
        limit: usize,
        event: &CloudEvent,
    ) -> Result<DeliveryFuture, RelayError<O::Error>> {
        let headers = event::headers(event);
        let size = event::size(event, &headers);
        if size > limit {
            return Err(RelayError::TooLarge { id: event.id.clone(), size, limit });
        }
        let record = FutureRecord::to(&self.topic).key(&event.subject).payload(event.data.get()).headers(headers);
        producer.send_result(record).map_err(|(error, _)| RelayError::Refused(event.id.clone(), error))
    }

    fn producer(&self) -> Result<Client<FutureProducer<Listener>>, RelayError<O::Error>> {
        config(self.settings, self.service)
            .create_with_context(Listener::of_producer(self.settings, &self.trouble))
            .map(|producer| Client::new(producer, Duration::ZERO))
            .map_err(RelayError::Client)
    }
}
