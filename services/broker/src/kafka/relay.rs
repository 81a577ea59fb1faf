//! Publishes a service's own event log to a topic.
//!
//! Events are sent in the log's order, with their subject as key, and a position of the log is stored once the broker has
//! confirmed every event up to it. So the events of one subject first appear in their order. A failure or a restart repeats
//! some of them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::{Brokers, CloudEvent, LoggedEvent, Outbox, Pauses, Position, Trouble, Wakeups};
use chrono::{SecondsFormat, Utc};
use metrics::Gauge;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::connection::{Client, Listener, config};

/// The most events published at once.
const BATCH: i64 = 500;
/// How long the broker may take to confirm an event, and to create a topic.
const CONFIRMATION: Duration = Duration::from_secs(10);
/// How long the broker may take to say whether the topic exists. The process cannot end during this time.
const LOOK: Duration = Duration::from_secs(2);
/// How long one poll of the log waits for new events.
const WAIT: Duration = Duration::from_secs(10);
/// The pause between two polls.
const BREATH: Duration = Duration::from_millis(50);
/// Partitions of a topic that the relay creates: so many members of a group can consume it at once.
const PARTITIONS: i32 = 3;
/// The number of copies in the broker's configuration.
const DEFAULT_REPLICATION: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Why nothing is published now.
#[derive(Debug, thiserror::Error)]
enum RelayError<E> {
    #[error("the Kafka client could not be created")]
    Client(#[source] KafkaError),
    #[error("the topic could not be found or created")]
    Topic(#[source] KafkaError),
    #[error("the event log could not be read, or its cursor not stored")]
    Outbox(#[source] E),
    #[error("the broker did not take an event")]
    Refused(#[source] KafkaError),
}

/// Publishes the events of `outbox` to `topic`, as `source`, for ever. The topic is created if it is missing.
///
/// Only one relay of a log may run at a time. It can be dropped at any point: the next one starts at the stored position,
/// and repeats the events behind it.
pub async fn relay<O: Outbox>(
    brokers: &Brokers,
    topic: &'static str,
    source: &'static str,
    outbox: &O,
    wakeups: &Wakeups,
) -> Infallible {
    let trouble = Arc::new(Trouble::new(topic, "published"));
    let lag = Lag(metrics::gauge!("relay_lag_seconds", "topic" => topic));
    let mut relay = Relay { brokers, topic, source, outbox, wakeups, trouble, lag, pauses: Pauses::default() };
    loop {
        let Err(error) = relay.publish_until_failure().await;
        relay.trouble.report(chain(&error));
        let pause = relay.pauses.next();
        tokio::time::sleep(pause).await;
    }
}

struct Relay<'a, O> {
    brokers: &'a Brokers,
    topic: &'static str,
    source: &'static str,
    outbox: &'a O,
    wakeups: &'a Wakeups,
    trouble: Arc<Trouble>,
    lag: Lag,
    pauses: Pauses,
}

impl<O: Outbox> Relay<'_, O> {
    /// Publishes from the stored position on, until anything fails. The next attempt has a new producer and starts at the
    /// stored position. What the old producer still delivers is the start of the same events, so the order of first
    /// appearances holds.
    async fn publish_until_failure(&mut self) -> Result<Infallible, RelayError<O::Error>> {
        let mut after = self.outbox.published().await.map_err(RelayError::Outbox)?;
        // Before the first call to the cluster, so that the lag grows while the cluster is away.
        let oldest = self.outbox.read(after, 1).await.map_err(RelayError::Outbox)?;
        self.lag.of_oldest(oldest.first());
        let producer = self.producer()?;
        if !self.topic_exists(&producer).await? {
            self.create_topic().await?;
        }
        loop {
            let read = || self.outbox.read(after, BATCH);
            let events = self.wakeups.poll(WAIT, read).await.map_err(RelayError::Outbox)?;
            self.lag.of_oldest(events.first());
            let Some(last) = events.last().map(|(position, _)| *position) else {
                // The poll returns at once when the service stops.
                tokio::time::sleep(BREATH).await;
                continue;
            };
            self.publish(&producer, events).await?;
            after = last;
            self.lag.of_oldest(None);
            self.trouble.end();
            self.pauses = Pauses::default();
        }
    }

    /// Sends the events and stores the position up to which all are confirmed.
    async fn publish(
        &self,
        producer: &FutureProducer<Listener>,
        events: Vec<(Position, LoggedEvent)>,
    ) -> Result<(), RelayError<O::Error>> {
        let mut confirmed = None;
        let result = self.confirm(producer, events, &mut confirmed).await;
        if let Some(up_to) = confirmed {
            self.outbox.store_published(up_to).await.map_err(RelayError::Outbox)?;
        }
        result.map_err(RelayError::Refused)
    }

    /// Sends the events in groups with at most one event of each subject, and waits for a group's confirmations before it
    /// sends the next group. So no event overtakes an earlier one of the same subject that was refused.
    ///
    /// The producer alone does not ensure this: after a refusal it goes on with its queue. With `enable.gapless.guarantee`
    /// it stops, but a broker that does not know the producer yet accepts the events that are already on their way.
    async fn confirm(
        &self,
        producer: &FutureProducer<Listener>,
        events: Vec<(Position, LoggedEvent)>,
        confirmed: &mut Option<Position>,
    ) -> Result<(), KafkaError> {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut subjects = HashSet::new();
            let mut group = Vec::new();
            let mut result = Ok(());
            while let Some((position, event)) = events.next_if(|(_, event)| subjects.insert(event.subject)) {
                match self.send(producer, &event.publish(self.source)) {
                    Ok(confirmation) => group.push((position, confirmation)),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            for (position, confirmation) in group {
                confirmation.await.map_err(|_| KafkaError::Canceled)?.map_err(|(error, _)| error)?;
                *confirmed = Some(position);
                metrics::counter!("events_published_total", "topic" => self.topic).increment(1);
            }
            result?;
        }
        Ok(())
    }

    /// Sends one event in the binary mode of the Kafka binding,
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>. The record's own
    /// timestamp is the time of sending: with the event's time, retention would delete an old event at once.
    fn send(&self, producer: &FutureProducer<Listener>, event: &CloudEvent) -> Result<DeliveryFuture, KafkaError> {
        let time = event.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let headers = [
            ("ce_specversion", event.specversion),
            ("ce_id", &event.id),
            ("ce_source", event.source),
            ("ce_type", &event.r#type),
            ("ce_subject", &event.subject),
            ("ce_time", &time),
            ("content-type", event.datacontenttype),
        ];
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let record = FutureRecord::to(self.topic).key(&event.subject).payload(event.data.get()).headers(headers);
        producer.send_result(record).map_err(|(error, _)| error)
    }

    fn producer(&self) -> Result<Client<FutureProducer<Listener>>, RelayError<O::Error>> {
        config(self.brokers)
            // On a retry, the broker drops what it already has.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", CONFIRMATION.as_millis().to_string())
            // A group is sent at once, without waiting for more events.
            .set("queue.buffering.max.ms", "1")
            // The relay creates the topic, with its own number of partitions.
            .set("allow.auto.create.topics", "false")
            .create_with_context(Listener(self.trouble.clone()))
            .map(|producer| Client::new(producer, Duration::ZERO))
            .map_err(RelayError::Client)
    }

    /// Asks first, because a right to write to a topic does not include the right to create it.
    async fn topic_exists(&self, producer: &FutureProducer<Listener>) -> Result<bool, RelayError<O::Error>> {
        let (producer, topic) = (producer.clone(), self.topic);
        let look = move || {
            let metadata = producer.client().fetch_metadata(Some(topic), LOOK)?;
            let error = metadata.topics().first().and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
            Ok(error != Some(RDKafkaErrorCode::UnknownTopicOrPartition))
        };
        // The call blocks.
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(KafkaError::Canceled)).map_err(RelayError::Topic)
    }

    /// Creates the topic, unless it exists by now.
    async fn create_topic(&self) -> Result<(), RelayError<O::Error>> {
        let admin: AdminClient<Listener> =
            config(self.brokers).create_with_context(Listener(self.trouble.clone())).map_err(RelayError::Client)?;
        let admin = Client::new(admin, Duration::ZERO);
        let topic = NewTopic::new(self.topic, PARTITIONS, DEFAULT_REPLICATION);
        let options = AdminOptions::new().request_timeout(Some(CONFIRMATION)).operation_timeout(Some(CONFIRMATION));
        let results = admin.create_topics([&topic], &options).await.map_err(RelayError::Topic)?;
        match results.into_iter().find_map(Result::err) {
            None => tracing::info!(topic = self.topic, "the topic was created"),
            Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Some((_, code)) => return Err(RelayError::Topic(KafkaError::AdminOp(code))),
        }
        Ok(())
    }
}

/// The gauge of the age of the oldest unconfirmed event. A process that is no longer the relay sets it to zero.
struct Lag(Gauge);

impl Lag {
    fn of_oldest(&self, event: Option<&(Position, LoggedEvent)>) {
        let age = event.map(|(_, event)| (Utc::now() - event.occurred_at).to_std().unwrap_or_default());
        self.0.set(age.unwrap_or_default().as_secs_f64());
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.0.set(0.0);
    }
}
