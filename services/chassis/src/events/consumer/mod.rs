//! Follows the events of another service by its HTTP feed, and hands them to those who know what they mean.

mod replica;

use std::convert::Infallible;
use std::time::Duration;

use axum::http::StatusCode;
use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use replica::{Command, Replica, keep_up, tend};

use crate::broker::Brokers;
use crate::http::request::chain;
use crate::remote::{BaseUrl, Http, Limits, RemoteError};

/// The dial `EVENTS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// Not at all.
    Off,
    /// By the other service's HTTP feed.
    Feed,
    /// From a Kafka broker, where the other service's relay takes them.
    Kafka,
}

/// The variables of events that come and go.
#[derive(Debug, Clone, Args)]
pub struct EventsConfig {
    /// where the other service's events are read, which keep the replica of its data up
    #[arg(long, env = "EVENTS_VIA", default_value = "off")]
    events_via: Via,
    /// the Kafka brokers that this service's events are published to, and with `EVENTS_VIA=kafka` the other's are read from
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<Brokers>,
}

/// What [`EventsConfig`] comes to.
#[derive(Debug, Clone)]
pub struct Events {
    /// Where the other service's events are read.
    pub read: Source,
    /// Where this service's events are published.
    pub publish: Option<Brokers>,
}

/// Where another service's events are read.
#[derive(Debug, Clone)]
pub enum Source {
    /// Nowhere.
    Off,
    /// See [`Via::Feed`].
    Feed,
    /// See [`Via::Kafka`].
    Kafka(Brokers),
}

impl EventsConfig {
    /// What it comes to.
    ///
    /// # Errors
    /// If one variable asks for another, or for what this program was built without.
    pub fn events(&self) -> Result<Events, String> {
        let publish = self.kafka_brokers.clone();
        let without = |variable| {
            Err(format!("{variable} asks for Kafka, but this program was built without: build it with `--features kafka`"))
        };
        match (self.events_via, publish) {
            (Via::Kafka, _) if !cfg!(feature = "kafka") => without("EVENTS_VIA"),
            (_, Some(_)) if !cfg!(feature = "kafka") => without("KAFKA_BROKERS"),
            (Via::Off, publish) => Ok(Events { read: Source::Off, publish }),
            (Via::Feed, publish) => Ok(Events { read: Source::Feed, publish }),
            (Via::Kafka, Some(brokers)) => Ok(Events { read: Source::Kafka(brokers.clone()), publish: Some(brokers) }),
            (Via::Kafka, None) => {
                Err("KAFKA_BROKERS is not set: EVENTS_VIA is `kafka`, and that is where events are read".to_owned())
            }
        }
    }
}

/// An event of another service, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `<id of what it is about>/<version of that>`; where it came from, if it has no id.
    pub id: String,
    /// What happened; empty if the message does not say.
    pub r#type: String,
    /// When it happened.
    pub time: Option<DateTime<Utc>>,
    /// What it is about, as it was after the event: JSON, if the sender keeps its word.
    pub data: String,
}

impl Received {
    /// What it is about.
    ///
    /// # Errors
    /// If it is not what the type says.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// What a service makes of another one's events.
///
/// Events come at least once, and those about one thing in their order, but for repetitions; so every effect must be one
/// that a repetition, or an older event, does not change.
pub trait Inbox: Send + Sync {
    /// Why a batch could not be applied now. Trying again later may help.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Where the feed goes on; `None` if nothing has been read of it.
    fn cursor(&self) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Applies the events in their order, and stores `cursor`, if there is one, not before the last of them is applied.
    /// Unknown types are passed over; what cannot be read is parked.
    fn apply(&self, events: &[Received], cursor: Option<&str>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// The other service's feed, and how it is read.
#[derive(Debug, Clone)]
pub struct Feed {
    neighbour: &'static str,
    http: Http,
}

/// Events asked for at once.
const BATCH: usize = 200;
/// The largest batch read, in bytes: the largest events that the services write, so many times, and as much again.
const MAX_BATCH: usize = 16 * 1024 * 1024;
/// How long the other service may hold an answer until there is an event.
const WAIT: Duration = Duration::from_secs(20);
/// How long reading may take besides.
const READ: Duration = Duration::from_secs(10);
/// Pauses after a failure: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// Why the feed could not be followed for a moment.
#[derive(Debug, thiserror::Error)]
pub enum FollowError<E> {
    /// It could not be read.
    #[error(transparent)]
    Feed(#[from] RemoteError),
    /// The other service does not know the place in its feed where this one wants to go on: it was restored, or is another.
    #[error("the feed does not know the cursor that is stored here: rebuild the replica")]
    Lost,
    /// What was read could not be applied.
    #[error("events of the feed could not be applied")]
    Inbox(#[source] E),
}

#[derive(Deserialize)]
struct CloudEvent<'a> {
    id: String,
    r#type: String,
    time: Option<DateTime<Utc>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Feed {
    /// The feed of the service called `neighbour`, at `url`.
    pub fn new(neighbour: &'static str, url: &BaseUrl) -> Self {
        let limits = Limits { connect: Duration::from_secs(1), attempt: WAIT + READ, call: (WAIT + READ) * 2 };
        Self { neighbour, http: Http::new(neighbour, url, limits).reading_up_to(MAX_BATCH) }
    }

    /// The other service itself, to ask it for a snapshot.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The cursor behind all events that were committed by now.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn end(&self) -> Result<String, RemoteError> {
        let answer = self.http.get("/events?from=end").await?;
        match (answer.status, answer.cursor("after")) {
            (StatusCode::OK, Some(cursor)) => Ok(cursor),
            _ => Err(answer.unexpected()),
        }
    }

    /// Hands the inbox all events that come from `source`, for ever, as a member of the consumer group `group` where there is
    /// a broker; the topic is called as the other service is.
    #[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "there is a broker with the feature only"))]
    pub async fn follow_via<I: Inbox>(&self, source: &Source, group: &str, inbox: &I) -> Infallible {
        match source {
            Source::Off => std::future::pending().await,
            Source::Feed => self.follow(inbox).await,
            #[cfg(feature = "kafka")]
            Source::Kafka(brokers) => crate::broker::consume(brokers, group, self.neighbour, inbox).await,
            #[cfg(not(feature = "kafka"))]
            Source::Kafka(_) => unreachable!("refused at the start"),
        }
    }

    /// Hands the inbox all events, from where it left off, for ever.
    pub async fn follow<I: Inbox>(&self, inbox: &I) -> Infallible {
        let mut said = String::new();
        let pauses = || {
            ExponentialBuilder::new()
                .with_min_delay(PAUSES[0])
                .with_max_delay(PAUSES[1])
                .without_max_times()
                .with_jitter()
                .build()
        };
        let mut pause = pauses();
        loop {
            match self.follow_once(inbox).await {
                Ok(()) => {
                    if !said.is_empty() {
                        tracing::info!(of = self.neighbour, "the feed is followed again");
                    }
                    said.clear();
                    pause = pauses();
                }
                Err(error) => {
                    let error = chain(&error);
                    // Once, as long as it stays the same.
                    if error != said {
                        tracing::warn!(of = self.neighbour, error, "the feed is not followed at this moment");
                        said = error;
                    }
                    tokio::time::sleep(pause.next().unwrap_or(PAUSES[1])).await;
                }
            }
        }
    }

    /// Reads one batch, waits for it if need be, and has it applied.
    async fn follow_once<I: Inbox>(&self, inbox: &I) -> Result<(), FollowError<I::Error>> {
        let cursor = inbox.cursor().await.map_err(FollowError::Inbox)?;
        let after = cursor.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let answer = self.http.get(&format!("/events?limit={BATCH}&wait={}{after}", WAIT.as_secs())).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Err(FollowError::Lost),
            _ => return Err(answer.unexpected().into()),
        }
        let next = answer.cursor("after").ok_or_else(|| answer.unexpected())?;
        let events: Vec<CloudEvent<'_>> = answer.json()?;
        let events: Vec<Received> = events.into_iter().map(Received::from).collect();
        if !events.is_empty() {
            inbox.apply(&events, Some(&next)).await.map_err(FollowError::Inbox)?;
        }
        observe(self.neighbour, &events);
        Ok(())
    }
}

impl From<CloudEvent<'_>> for Received {
    fn from(CloudEvent { id, r#type, time, data }: CloudEvent<'_>) -> Self {
        let data = data.map(|data| data.get().to_owned()).unwrap_or_default();
        Self { id: storable(&id), r#type: storable(&r#type), time, data }
    }
}

/// A text without NUL, which Postgres does not take: an event that cannot even be parked would stop all behind it.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Counts what was applied, and how old the last of it is; with nothing to apply, there is no lag.
pub(crate) fn observe(neighbour: &'static str, applied: &[Received]) {
    metrics::counter!("events_consumed_total", "of" => neighbour).increment(applied.len() as u64);
    let lag = applied
        .last()
        .and_then(|event| event.time)
        .map_or(0.0, |time| (Utc::now() - time).to_std().unwrap_or_default().as_secs_f64());
    metrics::gauge!("event_lag_seconds", "of" => neighbour).set(lag);
}
