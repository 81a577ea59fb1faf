//! The one trait through which chassis reads and writes a service's events.

use std::error::Error;
use std::io;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::archive::file::{ArchiveFile, Archived, Obsolete};
use super::consumer::inbox::Received;
use super::event::{LoggedEvent, Position};
use super::read_after::ReadAfter;
use super::versions::EventType;
use super::wakeups::Wakeups;
use crate::http::page::{self, Rows};
use crate::http::problem::Problem;

/// The most bytes of a page of the feed or of a history. A single event may be larger.
pub const PAGE_BYTES: i64 = page::PAGE_BYTES as i64;

/// A row of a page of the feed: an event, and its position in the log.
#[expect(missing_docs, reason = "the columns of the log explain them")]
#[derive(Debug)]
pub struct FeedEvent {
    pub subject: Uuid,
    pub version: i64,
    pub r#type: String,
    pub data: Box<RawValue>,
    pub occurred_at: DateTime<Utc>,
    pub actor: Option<String>,
    pub traceparent: Option<String>,
    pub epoch: i64,
    pub xid: i64,
    pub position: i64,
    /// Up to where the log is archived, if that is behind the page's start. The page may then lack events.
    pub archived_up_to: Option<String>,
}

impl FeedEvent {
    /// The event's position.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, xid: self.xid, position: self.position }
    }

    /// The event.
    pub fn into_event(self) -> LoggedEvent {
        let Self { subject, version, r#type, data, occurred_at, actor, traceparent, .. } = self;
        LoggedEvent { subject, version, r#type, data, occurred_at, actor, traceparent }
    }
}

/// The event tables of a service: its own log, its cursors, and the events of others that it could not apply.
///
/// A service implements it by [`event_store!`](crate::event_store), which brings the statements.
pub trait EventStore: Clone + Send + Sync + 'static {
    /// Why the database refused, or could not be used.
    type Error: Error + Into<Problem> + Send + Sync + 'static;
    /// The service's name: the name of its topic, and the path of its list.
    const SERVICE: &'static str;
    /// The service as `source` of its CloudEvents.
    const SOURCE: &'static str;
    /// What it publishes.
    const TYPES: &'static [EventType];

    /// Wakes the readers of the log.
    fn wakeups(&self) -> &Wakeups;

    /// The events of one subject after version `after`, oldest first: at most `limit`, and at most [`PAGE_BYTES`] of them,
    /// but at least one if there is any. A standby that has the changes of `seen` may be read.
    fn history(
        &self,
        subject: Uuid,
        after: i64,
        limit: i64,
        seen: ReadAfter,
    ) -> impl Future<Output = Result<Rows<LoggedEvent>, Self::Error>> + Send;

    /// Whom a subject belongs to, for callers who may see only what is theirs: itself, if the service says nothing else.
    /// `None` if it does not exist. A standby that has the changes of `_seen` may be read.
    fn owner(&self, subject: Uuid, _seen: ReadAfter) -> impl Future<Output = Result<Option<Uuid>, Self::Error>> + Send {
        std::future::ready(Ok(Some(subject)))
    }

    /// The events after a position of the log, in the log's order: at most `limit`, and at most [`PAGE_BYTES`] of them as
    /// published, but at least one if there is any.
    ///
    /// An event is shown once every older transaction has ended. Until then an older transaction could still commit an event
    /// with an earlier position, and a reader that had gone past it would never see it. Older epochs get no new events.
    ///
    /// A standby that has the changes of `seen` may be read. It knows which transactions are under way on the primary, and
    /// shows the beginning of what the primary shows.
    fn feed(
        &self,
        after: Position,
        limit: i64,
        seen: ReadAfter,
    ) -> impl Future<Output = Result<Vec<FeedEvent>, Self::Error>> + Send;

    /// The position of the last event that [`Self::feed`] shows.
    fn newest(&self) -> impl Future<Output = Result<Position, Self::Error>> + Send;

    /// The position behind all events whose transactions are older than every open one.
    fn end(&self) -> impl Future<Output = Result<Position, Self::Error>> + Send;

    /// Moves the mark of the archive past at most `most` events that are older than `older_than`, and moves what this makes
    /// obsolete from the log to `file`. The outer error is the database's, the inner one the file's: nothing has changed.
    fn archive(
        &self,
        older_than: DateTime<Utc>,
        most: i32,
        file: &mut ArchiveFile,
    ) -> impl Future<Output = Result<io::Result<Archived>, Self::Error>> + Send;

    /// What [`Self::archive`] would do if the mark were at `mark`.
    fn obsolete(
        &self,
        mark: &str,
        older_than: DateTime<Utc>,
        most: i32,
    ) -> impl Future<Output = Result<Obsolete, Self::Error>> + Send;

    /// For how many seconds an open transaction has withheld the oldest committed event from the feed.
    fn withheld_seconds(&self) -> impl Future<Output = Result<f64, Self::Error>> + Send;

    /// The stored cursor called `name`.
    fn find_cursor(&self, name: &str) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Stores the cursor called `name`.
    fn store_cursor(&self, name: &str, cursor: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Stores an event that cannot be applied, and the reason. It replaces a parked event with the same id.
    fn park(&self, event: &Received, error: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// All parked events, oldest first.
    fn parked(&self) -> impl Future<Output = Result<Vec<Received>, Self::Error>> + Send;

    /// The number of parked events.
    fn count_parked(&self) -> impl Future<Output = Result<i64, Self::Error>> + Send;

    /// Deletes a parked event.
    fn unpark(&self, id: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The database's clock.
    fn now(&self) -> impl Future<Output = Result<DateTime<Utc>, Self::Error>> + Send;
}
