//! The service's own log, on its way to the broker.

use chassis::events::{Outbox, Position, StoredEvent};
use shared_db::{Database, DatabaseError, run};

use crate::db::cursors::{RELAY, find_cursor, store_cursor};
use crate::db::events;

/// The log `order_events`, and the place up to which it is published.
pub struct EventLog(pub Database);

/// Why it could not be read or written now.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// The database's reason.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The place is none that was stored by this service.
    #[error("the stored place of the log is no place")]
    Place(#[from] std::num::ParseIntError),
}

impl Outbox for EventLog {
    type Error = EventLogError;

    async fn published(&self) -> Result<Position, EventLogError> {
        let stored = run!(self.0, connection => find_cursor(connection, RELAY)).await?;
        Ok(stored.map(|stored| stored.parse()).transpose()?.unwrap_or_default())
    }

    async fn read(&self, after: Position, limit: i64) -> Result<Vec<StoredEvent>, EventLogError> {
        Ok(run!(self.0, connection => events::feed(connection, after, limit)).await?)
    }

    async fn store_published(&self, up_to: Position) -> Result<(), EventLogError> {
        Ok(run!(self.0, connection => store_cursor(connection, RELAY, &up_to.to_string())).await?)
    }
}

/// Publishes the log to the topic `orders`, for ever, in one process of the service at a time.
#[cfg(feature = "kafka")]
pub async fn publish(app: crate::App, brokers: chassis::broker::Brokers) -> std::convert::Infallible {
    let log = EventLog(app.database.clone());
    let work = || chassis::broker::relay(&brokers, "orders", crate::events::SOURCE, &log, &app.wakeups);
    shared_db::alone(&app.database, "orders: relay", work).await
}
