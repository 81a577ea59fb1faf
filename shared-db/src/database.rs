//! The pool of connections.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::managed::{Object, Pool};
use sqlx::PgConnection;

use crate::connector::{Connector, InvalidUrl};
use crate::error::DatabaseError;

/// How a service uses its database.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// The most connections open at once.
    pub max_connections: usize,
    /// How long to wait for a connection: for a free one, its sign of life, a new one to open, all together.
    pub acquire_timeout: Duration,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// How long one statement may wait for a lock.
    pub lock_timeout: Duration,
}

impl Settings {
    /// Settings that suit a service answering requests.
    pub fn new(application_name: &str, max_connections: usize) -> Self {
        Self {
            application_name: application_name.to_owned(),
            max_connections,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
        }
    }
}

/// The pool's size and use.
#[derive(Debug, Clone, Copy)]
pub struct PoolStatus {
    /// Connections open.
    pub open: usize,
    /// Of these, connections waiting for work.
    pub idle: usize,
    /// Callers waiting for a connection.
    pub waiting: usize,
}

/// A service's database.
///
/// Its pool makes no round trip of its own: sqlx's `PgPool` pings at every acquire and release, which doubles the cost
/// of a short request.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Connector>,
    acquire_timeout: Duration,
}

impl Database {
    /// Prepares a pool. Nothing is opened before it is needed, so a database that is away does not matter yet.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        let pool = Pool::builder(Connector::new(url, settings)?)
            .max_size(settings.max_connections)
            .build()
            .expect("it has no time-outs of its own, which would need a runtime");
        Ok(Self { pool, acquire_timeout: settings.acquire_timeout })
    }

    /// A connection of the pool, to be given back by [`Settle::settle`].
    ///
    /// # Errors
    /// [`DatabaseError`] in bounded time if there is none to be had.
    pub async fn connection(&self) -> Result<Connection, DatabaseError> {
        // One timer for all of it: under load, every request waits.
        match tokio::time::timeout(self.acquire_timeout, self.pool.get()).await {
            Ok(connection) => Ok(Connection(Some(connection?))),
            Err(_elapsed) => Err(DatabaseError::NoConnection("waited too long")),
        }
    }

    /// A connection beside the pool, which the server closes after a `silence` of that length.
    pub(crate) async fn unpooled(&self, silence: Duration) -> Result<PgConnection, DatabaseError> {
        let open = self.pool.manager().open(silence);
        match tokio::time::timeout(self.acquire_timeout, open).await {
            Ok(opened) => Ok(opened?),
            Err(_elapsed) => Err(DatabaseError::NoConnection("waited too long")),
        }
    }

    /// The pool's size and use now.
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus { open: status.size, idle: status.available, waiting: status.waiting }
    }
}

/// A connection in use.
///
/// It goes back to the pool only by [`Settle::settle`]. Dropped without (because the caller went away in the middle of a
/// statement, or of a transaction) it is closed, and the server takes back whatever was open.
pub struct Connection(Option<Object<Connector>>);

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.as_ref().expect("held until settled").connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.as_mut().expect("held until settled").connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// What is done with the outcome of the last statement on a connection.
pub trait Settle<T> {
    /// Gives the connection back, or closes it if the statement showed that it is broken, along with all that are as
    /// old: after a restart of the server, one request fails and not one for each pooled connection.
    ///
    /// # Errors
    /// What the statement's error means.
    fn settle(self, connection: Connection) -> Result<T, DatabaseError>;
}

impl<T> Settle<T> for Result<T, sqlx::Error> {
    fn settle(self, mut connection: Connection) -> Result<T, DatabaseError> {
        let outcome = self.map_err(DatabaseError::from);
        if let (Err(error), Some(object)) = (&outcome, &connection.0)
            && error.is_broken_connection()
        {
            if let Some(pool) = Object::pool(object) {
                pool.manager().discard(object.generation);
            }
        } else {
            drop(connection.0.take());
        }
        outcome
    }
}
