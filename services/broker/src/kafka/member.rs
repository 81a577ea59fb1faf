//! A member of a consumer group, which reads each partition from the inbox's own place on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::events::Trouble;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::connection::{Client, Listener, config};
use super::places::{Places, Standing};
use super::settings::Settings;

/// How long a broker may take to say where a partition begins and ends.
const ASK: Duration = Duration::from_secs(1);
/// How long the group waits for a silent member: as short as a broker allows by default.
const SESSION: &str = "6000";
/// How often a member says that it lives.
const HEARTBEAT: &str = "2000";
/// How often the consumer looks for a topic that does not exist yet, and for new partitions.
const LOOK: &str = "10000";
/// How many events are fetched ahead: a few batches. The default is a hundred thousand of each partition.
const AHEAD: &str = "1000";
/// How long fetching pauses when so many are there. The default of a second would limit the speed.
const BACKOFF: &str = "10";
/// How long the drop of a member waits until it is closed.
const LEAVE: Duration = Duration::from_secs(1);

/// What librdkafka tells a member.
pub(super) struct Reader {
    listener: Listener,
    topic: String,
    service: &'static str,
    places: Mutex<Places>,
}

impl Reader {
    /// The places behind what has arrived.
    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these partitions read from the inbox's places on.
    fn starts(&self, partitions: impl IntoIterator<Item = i32>) -> KafkaResult<TopicPartitionList> {
        let (places, mut starts) = (self.places(), TopicPartitionList::new());
        for partition in partitions {
            starts.add_partition_offset(&self.topic, partition, places.start(partition))?;
        }
        Ok(starts)
    }

    fn report(&self, error: &KafkaError) {
        self.listener.report(error, &error.to_string());
    }

    fn count_assigned(&self, partitions: usize) {
        metrics::gauge!("kafka_assigned_partitions", "topic" => self.service).set(partitions as f64);
    }
}

impl ClientContext for Reader {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.listener.generate_oauth_token(config)
    }
}

impl ConsumerContext for Reader {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        metrics::counter!("kafka_rebalances_total", "topic" => self.service).increment(1);
        let done = if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.count_assigned(partitions.count());
            let partitions = partitions.elements().iter().map(|assigned| assigned.partition()).collect::<Vec<_>>();
            self.starts(partitions).and_then(|starts| consumer.assign(&starts))
        } else {
            self.count_assigned(0);
            consumer.unassign()
        };
        if let Err(error) = done {
            self.report(&error);
        }
    }

    /// The inbox has the place. If the group's is missing, only the group's lag is wrong until the next commit.
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(topic = self.service, %error, "a position in the topic was not committed");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.count_assigned(0);
    }
}

/// A member of a consumer group.
pub(super) struct Member {
    pub(super) client: Client<StreamConsumer<Reader>>,
    topic: String,
}

impl Member {
    /// Joins `group`, and goes on from `places`.
    pub(super) fn join(
        settings: &Settings,
        group: &str,
        service: &'static str,
        places: Places,
        trouble: &Arc<Trouble>,
    ) -> KafkaResult<Self> {
        let defaults = [
            ("client.id", group),
            ("group.id", group),
            // A service lets one process consume at a time. So the next one takes the place of one that was killed or hangs
            // at once. With an id of its own it would wait until the session ends.
            ("group.instance.id", group),
            ("session.timeout.ms", SESSION),
            ("heartbeat.interval.ms", HEARTBEAT),
            ("topic.metadata.refresh.interval.ms", LOOK),
            ("queued.min.messages", AHEAD),
            ("fetch.queue.backoff.ms", BACKOFF),
        ];
        let guarantees = [
            ("enable.auto.commit", "false"),
            // A place that the topic no longer has is an error, and is looked into.
            ("auto.offset.reset", "error"),
            ("partition.assignment.strategy", "range,roundrobin"),
        ];
        let topic = settings.topic(service);
        let listener = Listener::new(settings, trouble);
        let reader = Reader { listener, topic: topic.clone(), service, places: Mutex::new(places) };
        let consumer: StreamConsumer<Reader> = config(settings, &defaults, &guarantees).create_with_context(reader)?;
        consumer.subscribe(&[&topic])?;
        Ok(Self { client: Client::new(consumer, LEAVE), topic })
    }

    /// What librdkafka has told this member.
    pub(super) fn reader(&self) -> &Reader {
        self.client.client().context()
    }

    /// Where the assigned partitions begin and end, by their brokers, and where this member goes on.
    pub(super) async fn look(&self) -> KafkaResult<Vec<Standing>> {
        let (client, topic) = (self.client.share(), self.topic.clone());
        // The calls block.
        tokio::task::spawn_blocking(move || look(&client, &topic)).await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Reads the assigned partitions again, from the places on.
    pub(super) fn start_again(&self) -> KafkaResult<()> {
        let assigned = self.client.assignment()?;
        let partitions = assigned.elements().iter().map(|assigned| assigned.partition()).collect::<Vec<_>>();
        self.client.assign(&self.reader().starts(partitions)?)?;
        self.resume()
    }

    /// Stops fetching, also from partitions that were assigned since.
    pub(super) fn pause(&self) -> KafkaResult<()> {
        self.client.pause(&self.client.assignment()?)
    }

    /// Fetches again.
    pub(super) fn resume(&self) -> KafkaResult<()> {
        self.client.resume(&self.client.assignment()?)
    }

    /// Commits the places of the assigned partitions to the group, without waiting.
    pub(super) fn commit(&self, places: &Places) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        let assigned = self.client.assignment()?;
        for (partition, next) in
            places.iter().filter(|(partition, _)| assigned.find_partition(&self.topic, *partition).is_some())
        {
            offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next))?;
        }
        if offsets.count() == 0 { Ok(()) } else { self.client.commit(&offsets, CommitMode::Async) }
    }
}

fn look(client: &StreamConsumer<Reader>, topic: &str) -> KafkaResult<Vec<Standing>> {
    let assigned = client.assignment()?;
    let partitions: Vec<i32> = assigned.elements().iter().map(|assigned| assigned.partition()).collect();
    let mut unknown = TopicPartitionList::new();
    for partition in &partitions {
        if client.context().places().next(*partition).is_none() {
            unknown.add_partition(topic, *partition);
        }
    }
    let committed = if unknown.count() > 0 { client.committed_offsets(unknown, ASK)? } else { unknown };
    partitions
        .into_iter()
        .map(|partition| {
            let (low, high) = client.fetch_watermarks(topic, partition, ASK)?;
            let committed = committed.find_partition(topic, partition).map(|committed| committed.offset());
            let next = match (client.context().places().next(partition), committed) {
                (None, Some(Offset::Offset(next))) => Some(next),
                (next, _) => next,
            };
            Ok(Standing { partition, next, low, high })
        })
        .collect()
}
