//! Publishes a service's own event log to a topic.
//!
//! Events leave in the log's order, keyed by what they are about, and a place of the log is stored when everything up to
//! it is confirmed. So the first appearances of one thing's events are in their order, whatever happens; a failure or a
//! restart repeats some of them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use metrics::Gauge;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::Brokers;
use super::connection::{Client, Listener, Pauses, Trouble, config};
use crate::events::{CloudEvent, Outbox, Position, StoredEvent, Wakeups};
use crate::http::request::chain;

/// Events published at once.
const BATCH: i64 = 500;
/// How long the broker may take to confirm an event, and to create a topic.
const CONFIRMATION: Duration = Duration::from_secs(10);
/// How long the broker may take to say whether the topic exists. The process cannot end while this is waited for.
const LOOK: Duration = Duration::from_secs(2);
/// How long one look for new events may wait for them.
const WAIT: Duration = Duration::from_secs(10);
/// The pause between two such looks.
const BREATH: Duration = Duration::from_millis(50);
/// Partitions of a topic that this creates: events about different things can be consumed by so many at once.
const PARTITIONS: i32 = 3;
/// As many copies as the broker's configuration says.
const DEFAULT_REPLICATION: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Why nothing was published for a moment.
#[derive(Debug, thiserror::Error)]
enum RelayError<E> {
    #[error("the client could not be made")]
    Client(#[source] KafkaError),
    #[error("the topic could not be found or created")]
    Topic(#[source] KafkaError),
    #[error("the event log could not be read, or the place in it not stored")]
    Outbox(#[source] E),
    #[error("the broker did not take an event")]
    Refused(#[source] KafkaError),
}

/// Publishes the events of `outbox` to `topic`, as `source`, for ever. The topic is created if it is missing.
///
/// Only one relay of a log may run at a time. It can be dropped anywhere: another one goes on from the place that is
/// stored, which repeats what was not yet marked.
pub async fn relay<O: Outbox>(
    brokers: &Brokers,
    topic: &'static str,
    source: &'static str,
    outbox: &O,
    wakeups: &Wakeups,
) -> Infallible {
    let trouble = Trouble::new(topic, "published");
    let lag = Lag(metrics::gauge!("relay_lag_seconds", "topic" => topic));
    let mut relay = Relay { brokers, topic, source, outbox, wakeups, trouble, lag, pauses: Pauses::default() };
    loop {
        let Err(error) = relay.publish_until_failure().await;
        relay.trouble.say(chain(&error));
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
    /// Publishes from the stored place on, until anything fails. Whatever it was, the next attempt has a new producer and
    /// sends again from the stored place. Should the old producer still get something through, it is the start of the same
    /// events in the same order, so none appears before one that it follows.
    async fn publish_until_failure(&mut self) -> Result<Infallible, RelayError<O::Error>> {
        let mut after = self.outbox.published().await.map_err(RelayError::Outbox)?;
        // Before anything is asked of the cluster: while it is away, the lag grows.
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
            let Some(last) = events.last().map(|event| event.position) else {
                // The poll does not wait when the service stops.
                tokio::time::sleep(BREATH).await;
                continue;
            };
            self.publish(&producer, events).await?;
            after = last;
            self.lag.of_oldest(None);
            self.trouble.over();
            self.pauses = Pauses::default();
        }
    }

    /// Sends the events and stores the place up to which all are confirmed.
    async fn publish(
        &self,
        producer: &FutureProducer<Listener>,
        events: Vec<StoredEvent>,
    ) -> Result<(), RelayError<O::Error>> {
        let mut confirmed = None;
        let result = self.confirm(producer, events, &mut confirmed).await;
        if let Some(up_to) = confirmed {
            self.outbox.store_published(up_to).await.map_err(RelayError::Outbox)?;
        }
        result.map_err(RelayError::Refused)
    }

    /// Sends the events in groups that have one event about each thing at most, and waits for a group's confirmations before
    /// it sends the next one. So no event overtakes an earlier one about the same thing that was refused.
    ///
    /// The producer alone does not see to that: it goes on with what it holds when something is refused. With
    /// `enable.gapless.guarantee` it stops, but what is on its way by then is taken by a broker to which the producer is new.
    async fn confirm(
        &self,
        producer: &FutureProducer<Listener>,
        events: Vec<StoredEvent>,
        confirmed: &mut Option<Position>,
    ) -> Result<(), KafkaError> {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut things = HashSet::new();
            let mut group = Vec::new();
            let mut result = Ok(());
            while let Some(event) = events.next_if(|event| things.insert(event.subject)) {
                let position = event.position;
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
    /// time stays that of sending: with the event's, an old one would be past its retention at once.
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
            // The broker drops what it already has when the producer tries again.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", CONFIRMATION.as_millis().to_string())
            // How long it waits for more to send with an event: a group is sent at once.
            .set("queue.buffering.max.ms", "1")
            // A broker that creates every topic somebody asks for gives it the number of partitions that it likes.
            .set("allow.auto.create.topics", "false")
            .create_with_context(Listener(self.trouble.clone()))
            .map(Client::new)
            .map_err(RelayError::Client)
    }

    /// Looks first: not everybody who may write to a topic may create one.
    async fn topic_exists(&self, producer: &FutureProducer<Listener>) -> Result<bool, RelayError<O::Error>> {
        let (producer, topic) = (producer.clone(), self.topic);
        let look = move || {
            let metadata = producer.client().fetch_metadata(Some(topic), LOOK)?;
            let error = metadata.topics().first().and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
            Ok(error != Some(RDKafkaErrorCode::UnknownTopicOrPartition))
        };
        // It blocks.
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(KafkaError::Canceled)).map_err(RelayError::Topic)
    }

    /// Creates the topic, unless somebody else has done so by now.
    async fn create_topic(&self) -> Result<(), RelayError<O::Error>> {
        let admin: AdminClient<Listener> =
            config(self.brokers).create_with_context(Listener(self.trouble.clone())).map_err(RelayError::Client)?;
        let admin = Client::new(admin);
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

/// The age of the oldest event that the broker has not confirmed: none for whoever is not the relay any more.
struct Lag(Gauge);

impl Lag {
    fn of_oldest(&self, event: Option<&StoredEvent>) {
        let age = event.map(|event| (Utc::now() - event.occurred_at).to_std().unwrap_or_default());
        self.0.set(age.unwrap_or_default().as_secs_f64());
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.0.set(0.0);
    }
}
