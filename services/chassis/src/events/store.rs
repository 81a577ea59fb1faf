//! The one trait through which chassis reads and writes a service's events.

use std::error::Error;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::consumer::inbox::Received;
use super::event::{LoggedEvent, Position};
use super::wakeups::Wakeups;
use crate::http::problem::Problem;

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

    /// Wakes the readers of the log.
    fn wakeups(&self) -> &Wakeups;

    /// The events of one subject after version `after`, oldest first.
    fn history(
        &self,
        subject: Uuid,
        after: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<LoggedEvent>, Self::Error>> + Send;

    /// All events after a position of the log, in the log's order.
    ///
    /// An event is shown once every older transaction has ended. Until then an older transaction could still commit an event
    /// with an earlier position, and a reader that had gone past it would never see it. Older epochs get no new events.
    fn feed(
        &self,
        after: Position,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<(Position, LoggedEvent)>, Self::Error>> + Send;

    /// The position behind all events whose transactions are older than every open one.
    fn end(&self) -> impl Future<Output = Result<Position, Self::Error>> + Send;

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
