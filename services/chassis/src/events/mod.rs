//! Events as other services read them: CloudEvents 1.0, and the feed they come by.

pub mod consumer;
pub mod progress;

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::cursor;
use crate::http::json::json;
use crate::http::page::{Place, next_link};
use crate::http::problem::Problem;
use crate::http::query::{Query, reject};

/// A CloudEvent, <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: &'static str,
    /// `<id of what it is about>/<version of that>`; unique within `source`.
    #[schema(example = "0198c0de-0000-7000-8000-000000000000/1")]
    pub id: String,
    /// Who tells it.
    #[schema(value_type = String, format = "uri-reference")]
    pub source: &'static str,
    /// What happened.
    #[schema(example = "thing.happened.v1")]
    pub r#type: String,
    /// Id of what it is about.
    pub subject: String,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// `application/json`.
    pub datacontenttype: &'static str,
    /// What it is about, as it was after the event.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}

/// An event as it lies in a service's log.
#[derive(Debug)]
pub struct StoredEvent {
    /// Id of what it is about.
    pub subject: Uuid,
    /// Version of that after the event.
    pub version: i64,
    /// What happened.
    pub r#type: String,
    /// What it is about, as it was after the event.
    pub data: Box<RawValue>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// Where it lies.
    pub position: Position,
}

impl StoredEvent {
    /// The event as `source` publishes it.
    pub fn publish(self, source: &'static str) -> CloudEvent {
        CloudEvent {
            specversion: "1.0",
            id: format!("{}/{}", self.subject, self.version),
            source,
            r#type: self.r#type,
            subject: self.subject.to_string(),
            time: self.occurred_at,
            datacontenttype: "application/json",
            data: self.data,
        }
    }
}

/// A place in an event log: see the column comments of the log's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Life of the log.
    pub epoch: i64,
    /// Transaction that appended the event.
    pub xid: u64,
    /// Place within the transaction.
    pub position: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, xid, position } = self;
        write!(formatter, "{epoch}/{xid}/{position}")
    }
}

impl FromStr for Position {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self { epoch: part().parse()?, xid: part().parse()?, position: part().parse()? })
    }
}

impl Place for Position {
    fn to_bytes(&self) -> Vec<u8> {
        [self.epoch.to_be_bytes(), self.xid.to_be_bytes(), self.position.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (xid, rest) = rest.split_first_chunk()?;
        let position = rest.try_into().ok()?;
        Some(Self {
            epoch: i64::from_be_bytes(*epoch),
            xid: u64::from_be_bytes(*xid),
            position: i64::from_be_bytes(position),
        })
    }
}

/// A service's own log, on its way to a broker.
pub trait Outbox: Send + Sync {
    /// Why it could not be read or written now. Trying again later may help.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The place up to which the broker has confirmed everything.
    fn published(&self) -> impl Future<Output = Result<Position, Self::Error>> + Send;

    /// At most `limit` events after that place, in the log's order: those about one thing in the order of their versions.
    fn read(&self, after: Position, limit: i64) -> impl Future<Output = Result<Vec<StoredEvent>, Self::Error>> + Send;

    /// Stores that the broker has confirmed everything up to this place.
    fn store_published(&self, up_to: Position) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What is asked of a feed.
#[derive(Debug, Clone, Copy)]
pub struct FeedRequest {
    /// The place of the last event seen; `None`: nothing is asked but where the end is.
    pub after: Option<Position>,
    /// How many events at most.
    pub limit: u32,
    /// How long to wait for the first one.
    pub wait: Duration,
}

/// Names the cursors of the feed apart from those of lists.
const FEED: &str = "feed";

impl FeedRequest {
    /// Reads `after`, `limit` and `wait`.
    ///
    /// # Errors
    /// 400 for a value out of range, and for a cursor that the feed of `source` did not issue.
    pub fn read(source: &str, query: &mut Query) -> Result<Self, Problem> {
        let list = format!("{FEED}{source}");
        let after = query.optional("after", |text| {
            let place = cursor::decode(&list, text).and_then(|bytes| Position::from_bytes(&bytes));
            place.ok_or("was not issued by this feed: take it from the Link header as it is".into())
        })?;
        let from_end = query.optional("from", |text| match text {
            "end" => Ok(()),
            _ => Err("must be `end`; to read from the start, leave it out".into()),
        })?;
        let after = match (from_end, after) {
            (None, after) => Some(after.unwrap_or_default()),
            (Some(()), None) => None,
            (Some(()), Some(_)) => return Err(reject("from", "cannot be combined with `after`")),
        };
        let limit = query.integer("limit", 1..=1000)?.unwrap_or(100);
        let wait = query.integer("wait", 0..=30)?.unwrap_or(0);
        Ok(Self { after, limit, wait: Duration::from_secs(wait.into()) })
    }

    /// The answer: a batch of events after `after`, and in `Link` where to go on, also when there are none yet.
    pub fn respond(source: &'static str, uri: &Uri, after: Position, events: Vec<StoredEvent>) -> Response {
        let next = events.last().map_or(after, |event| event.position);
        let events: Vec<CloudEvent> = events.into_iter().map(|event| event.publish(source)).collect();
        let mut response = json(&events);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let cursor = cursor::encode(&format!("{FEED}{source}"), &next.to_bytes());
        headers.insert(header::LINK, next_link(uri, "after", &cursor));
        response
    }
}

/// Wakes those who wait for events. A wake-up is a hint: it stays inside this process and says nothing of other
/// instances, so whoever waits polls as well.
#[derive(Debug, Clone, Default)]
pub struct Wakeups(Arc<Waiters>);

#[derive(Debug, Default)]
struct Waiters {
    notify: Notify,
    closed: AtomicBool,
}

/// The first pause between two polls; each pause is twice the one before, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two polls: an event of another instance waits no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Wakeups {
    /// Says that an event was committed.
    pub fn wake(&self) {
        self.0.notify.notify_waiters();
    }

    /// Ends all waiting, now and later: the service stops.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Calls `fetch` until it finds something or `wait` is over.
    ///
    /// # Errors
    /// The first error of `fetch`.
    pub async fn poll<T, E, F>(&self, wait: Duration, fetch: impl Fn() -> F) -> Result<Vec<T>, E>
    where
        F: Future<Output = Result<Vec<T>, E>>,
    {
        let deadline = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            // Listening starts before looking, so that nothing committed in between is missed.
            let woken = self.0.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let found = fetch().await?;
            if !found.is_empty() || Instant::now() >= deadline || self.0.closed.load(Ordering::Acquire) {
                return Ok(found);
            }
            tokio::select! {
                // Just committed: worth a quick look, and soon another if an older transaction still holds it back.
                () = woken => pause = FIRST_PAUSE,
                () = tokio::time::sleep_until(deadline.min(Instant::now() + pause)) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }
}
