//! What a broker's relay needs of a service's own log.

use std::num::ParseIntError;

use super::event::{LoggedEvent, Position};
use super::read_after::ReadAfter;
use super::store::EventStore;
use super::versions::published_from;

/// A service's own log, on its way to a broker.
pub trait Outbox: Send + Sync {
    /// Why the log could not be read, or its cursor not stored. A later try may succeed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The position up to which the broker has confirmed every event.
    fn published(&self) -> impl Future<Output = Result<Position, Self::Error>> + Send;

    /// At most `limit` events after a position, and at least one if there is any, in the log's order. Events of one subject
    /// are in the order of their versions. An event that is published in two versions is there twice.
    fn read(
        &self,
        after: Position,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<(Position, LoggedEvent)>, Self::Error>> + Send;

    /// Stores that the broker has confirmed every event up to a position.
    fn store_published(&self, up_to: Position) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a service's log could not be published now.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError<E> {
    /// The database's reason.
    #[error(transparent)]
    Store(E),
    /// The stored cursor is not a position.
    #[error("the cursor `{0}` is not a position of the log")]
    Position(&'static str, #[source] ParseIntError),
}

/// The log of a service, on its way to one kind of broker.
#[derive(Debug)]
pub struct OwnLog<'a, S> {
    /// The service's event tables.
    pub store: &'a S,
    /// The name of the cursor that says how far the log is published. The archive does not pass a cursor called
    /// `own log, to …`.
    pub cursor: &'static str,
}

impl<S: EventStore> Outbox for OwnLog<'_, S> {
    type Error = OutboxError<S::Error>;

    async fn published(&self) -> Result<Position, Self::Error> {
        let cursor = self.store.find_cursor(self.cursor).await.map_err(OutboxError::Store)?;
        let position = cursor.map(|cursor| cursor.parse()).transpose();
        Ok(position.map_err(|error| OutboxError::Position(self.cursor, error))?.unwrap_or_default())
    }

    async fn read(&self, after: Position, limit: i64) -> Result<Vec<(Position, LoggedEvent)>, Self::Error> {
        let found = self.store.feed(after, limit, ReadAfter::NOW).await.map_err(OutboxError::Store)?;
        let events = found.into_iter().map(|found| (found.position(), found.into_event())).collect();
        Ok(published_from(after, events, S::TYPES))
    }

    async fn store_published(&self, up_to: Position) -> Result<(), Self::Error> {
        self.store.store_cursor(self.cursor, &up_to.to_string()).await.map_err(OutboxError::Store)
    }
}
