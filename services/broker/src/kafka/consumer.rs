//! Reads the events of a topic, as a member of a consumer group, and hands them to an inbox.
//!
//! The inbox stores the place in the topic with the effect of the events before it. So a crash or a rebalance may repeat
//! events, but loses none, and a database that was restored goes on from its own place. The group gets the places too, for
//! Kafka's own tools.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::consumer::{Cursor, Follower, Inbox, Received};
use chassis::events::{Pauses, Trouble};
use futures_util::FutureExt;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::time::{Instant, timeout, timeout_at};

use super::event::read;
use super::member::Member;
use super::places::{Loss, Places, Record, Standing};
use super::settings::Settings;

/// The most events applied at once.
const BATCH: usize = 200;
/// How often the brokers are asked where the topic begins and ends, whether events arrive or not.
const IDLE: Duration = Duration::from_secs(3);
/// The pause after an error. librdkafka recovers from all but the fatal ones.
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
    #[error("the data could not be read from a snapshot")]
    Refill(#[source] E),
}

/// Hands the inbox all events of the topic of `service` for ever, as a member of the consumer group `group`. Members of one
/// group share the partitions.
///
/// It can be dropped at any point: events whose place was not stored are read again, by this member or by another.
pub(super) async fn consume<I: Inbox>(settings: &Settings, group: &str, service: &'static str, inbox: &I) -> Infallible {
    let trouble = Arc::new(Trouble::new(service, "consumed"));
    let follower = Follower::begin(service);
    let log = format!("topic {}", settings.topic(service));
    let mut pauses = Pauses::default();
    loop {
        let reading = Reading::begin(settings, group, service, inbox, &log, &follower, &trouble).await;
        let Err(error) = match reading {
            Ok(mut reading) => reading.read_until_failure(&mut pauses).await,
            Err(error) => Err(error),
        };
        trouble.report(chain(&error));
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Events in the order of their arrival, and what was found beside them.
#[derive(Default)]
struct Batch {
    events: Vec<Received>,
    /// Records that were read for the first time, tombstones included.
    records: usize,
    doubt: Option<Doubt>,
}

/// Why events may be lost.
#[derive(Debug, Clone, Copy)]
enum Doubt {
    /// The brokers do not have a place.
    Place,
    /// Another record stands where one was read.
    Record(i32),
}

struct Reading<'a, I> {
    service: &'static str,
    inbox: &'a I,
    log: &'a str,
    follower: &'a Follower,
    trouble: &'a Trouble,
    member: Member,
    /// The inbox was filled when this began, so its partitions may begin anywhere.
    is_first: bool,
    looked: Instant,
}

impl<'a, I: Inbox> Reading<'a, I> {
    /// Joins the group, with the inbox's places. An inbox without a place is filled first.
    async fn begin(
        settings: &Settings,
        group: &str,
        service: &'static str,
        inbox: &'a I,
        log: &'a str,
        follower: &'a Follower,
        trouble: &'a Arc<Trouble>,
    ) -> Result<Self, ConsumeError<I::Error>> {
        let stored = inbox.cursor(log).await.map_err(ConsumeError::Inbox)?;
        let places = stored.and_then(|stored| stored.parse::<Places>().ok()).unwrap_or_default();
        let is_first = places == Places::default();
        if is_first {
            inbox.refill().await.map_err(ConsumeError::Refill)?;
        }
        let member = Member::join(settings, group, service, places, trouble)?;
        Ok(Self { service, inbox, log, follower, trouble, member, is_first, looked: Instant::now() })
    }

    async fn read_until_failure(&mut self, pauses: &mut Pauses) -> Result<Infallible, ConsumeError<I::Error>> {
        loop {
            let mut batch = self.receive().await?;
            if batch.records > 0 {
                self.apply(&mut batch).await?;
                if !batch.events.is_empty() {
                    self.follower.observe(&batch.events);
                }
                self.trouble.end();
                *pauses = Pauses::default();
            }
            if let Some(doubt) = batch.doubt {
                self.recover(doubt).await?;
            } else if batch.records == 0 || self.looked.elapsed() >= IDLE {
                self.look(batch.records == 0).await?;
            }
        }
    }

    /// Waits for a record and takes those that have arrived with it; none within [`IDLE`] makes an empty batch.
    async fn receive(&self) -> Result<Batch, ConsumeError<I::Error>> {
        let client = &self.member.client;
        if let Some((code, reason)) = client.client().fatal_error() {
            return Err(ConsumeError::Fatal(code, reason));
        }
        let mut batch = Batch::default();
        let Ok(first) = timeout(IDLE, client.recv()).await else { return Ok(batch) };
        let mut arrived = Some(first);
        while let Some(record) = arrived {
            if !self.take(record, &mut batch) {
                // An error may come again at once.
                tokio::time::sleep(BREATH).await;
                break;
            }
            arrived = if batch.records < BATCH { client.recv().now_or_never() } else { None };
        }
        Ok(batch)
    }

    /// Adds a record to the batch; false of an error, or of a record that puts the rest in doubt.
    fn take(&self, record: Result<BorrowedMessage<'_>, KafkaError>, batch: &mut Batch) -> bool {
        let message = match record {
            Ok(message) => message,
            Err(error) => {
                // The listener has reported the error.
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
                    batch.doubt.get_or_insert(Doubt::Place);
                }
                return false;
            }
        };
        let (partition, timestamp) = (message.partition(), message.timestamp().to_millis());
        match self.member.reader().places().take(partition, message.offset(), timestamp) {
            Record::Known => true,
            Record::Other => {
                batch.doubt = Some(Doubt::Record(partition));
                false
            }
            Record::New => {
                batch.records += 1;
                batch.events.extend(read(&message));
                true
            }
        }
    }

    /// Has the batch applied together with its places, and tries again until it is.
    async fn apply(&self, batch: &mut Batch) -> Result<(), ConsumeError<I::Error>> {
        let mut pauses = Pauses::default();
        let mut held = false;
        loop {
            let places = self.member.reader().places().clone();
            let cursor = Cursor { log: self.log, value: &places.to_string() };
            match self.inbox.apply(&batch.events, Some(cursor)).await {
                Ok(()) => {
                    if held {
                        self.member.resume()?;
                    }
                    return Ok(self.member.commit(&places)?);
                }
                Err(error) => self.trouble.report(chain(&ConsumeError::Inbox(error))),
            }
            self.hold(batch, Instant::now() + pauses.next()).await?;
            held = true;
        }
    }

    /// Waits without leaving the group. A member that does not poll delays every rebalance and is removed from the group
    /// after a while. So it polls, with its partitions paused. A record that still arrives belongs to a partition assigned
    /// since, and goes to the end of the batch.
    async fn hold(&self, batch: &mut Batch, until: Instant) -> Result<(), KafkaError> {
        loop {
            self.member.pause()?;
            match timeout_at(until, self.member.client.recv()).await {
                Ok(record) => {
                    if !self.take(record, batch) {
                        tokio::time::sleep(BREATH).await;
                    }
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// Asks the brokers how far behind this member is, and whether its places are still there. `is_idle` says that nothing
    /// has arrived for a while.
    async fn look(&mut self, is_idle: bool) -> Result<(), ConsumeError<I::Error>> {
        self.looked = Instant::now();
        let behind = metrics::gauge!("kafka_lag_offsets", "topic" => self.service);
        // While no broker answers, the lag in seconds grows.
        let Ok(standings) = self.member.look().await else {
            behind.set(f64::NAN);
            return Ok(());
        };
        // Without a partition, nothing is known of the topic.
        let is_unknown = standings.is_empty();
        behind.set(if is_unknown { f64::NAN } else { standings.iter().map(Standing::behind).sum::<u64>() as f64 });
        if standings.iter().any(|standing| standing.loss(self.is_first).is_some()) {
            return self.recover(Doubt::Place).await;
        }
        if is_idle && !is_unknown && standings.iter().all(|standing| standing.behind() == 0) {
            self.follower.observe(&[]);
            self.trouble.end();
        }
        Ok(())
    }

    /// Finds out whether events are lost. If they are, the inbox is refilled, and what the topic has left is read from its
    /// beginning.
    async fn recover(&mut self, doubt: Doubt) -> Result<(), ConsumeError<I::Error>> {
        let standings = self.member.look().await?;
        let losses: Vec<Loss> = match doubt {
            Doubt::Record(partition) => vec![Loss::Anew(partition)],
            Doubt::Place => standings.iter().filter_map(|standing| standing.loss(self.is_first)).collect(),
        };
        if let Some(loss) = losses.iter().find(|loss| matches!(loss, Loss::Anew(_))).or(losses.first()) {
            self.refill(&loss.to_string()).await?;
        }
        let is_anew = losses.iter().any(|loss| matches!(loss, Loss::Anew(_)));
        for Standing { partition, next, low, .. } in &standings {
            let start = next.filter(|next| next >= low && !is_anew).unwrap_or(*low);
            let mut places = self.member.reader().places();
            if is_anew || places.next(*partition) != Some(start) || start == *low {
                places.set(*partition, start);
            }
        }
        let places = self.member.reader().places().to_string();
        self.inbox.apply(&[], Some(Cursor { log: self.log, value: &places })).await.map_err(ConsumeError::Inbox)?;
        Ok(self.member.start_again()?)
    }

    /// Refills the inbox without leaving the group. Records that arrive meanwhile are dropped: they are read again.
    async fn refill(&self, reason: &str) -> Result<(), ConsumeError<I::Error>> {
        let mut refilled = pin!(self.follower.refill(self.inbox, reason));
        loop {
            self.member.pause()?;
            tokio::select! {
                refilled = &mut refilled => return refilled.map_err(ConsumeError::Refill),
                record = self.member.client.recv() => {
                    if record.is_err() {
                        tokio::time::sleep(BREATH).await;
                    }
                }
            }
        }
    }
}
