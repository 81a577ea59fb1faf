//! What a broker's relay needs of a service's own log.

use std::num::ParseIntError;

use super::event::{LoggedEvent, Position};
use super::store::EventStore;

/// The cursor of the relay, in the service's table of cursors.
const RELAY: &str = "own log, to the broker";

/// A service's own log, on its way to a broker.
pub trait Outbox: Send + Sync {
    /// Why the log could not be read, or its cursor not stored. A later try may succeed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The position up to which the broker has confirmed every event.
    fn published(&self) -> impl Future<Output = Result<Position, Self::Error>> + Send;

    /// At most `limit` events after a position, in the log's order. Events of one subject are in the order of their
    /// versions.
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
    #[error("the cursor `{RELAY}` is not a position of the log")]
    Position(#[from] ParseIntError),
}

impl<S: EventStore> Outbox for S {
    type Error = OutboxError<S::Error>;

    async fn published(&self) -> Result<Position, Self::Error> {
        let cursor = self.find_cursor(RELAY).await.map_err(OutboxError::Store)?;
        Ok(cursor.map(|cursor| cursor.parse()).transpose()?.unwrap_or_default())
    }

    async fn read(&self, after: Position, limit: i64) -> Result<Vec<(Position, LoggedEvent)>, Self::Error> {
        self.feed(after, limit).await.map_err(OutboxError::Store)
    }

    async fn store_published(&self, up_to: Position) -> Result<(), Self::Error> {
        self.store_cursor(RELAY, &up_to.to_string()).await.map_err(OutboxError::Store)
    }
}
