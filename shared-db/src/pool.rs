//! A pool of connections to one database.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::managed::{self, Object};
use sqlx::PgConnection;

use crate::connector::{Connector, InvalidUrl};
use crate::error::DatabaseError;
use crate::settings::Settings;

/// A pool. It opens a connection when one is needed, so it can be made while the database is away.
///
/// It makes no round trip of its own. sqlx's `PgPool` pings at each release, in a task of its own: that costs Postgres a
/// round trip for every request.
#[derive(Clone)]
pub(crate) struct Pool {
    pool: managed::Pool<Connector>,
    acquire_timeout: Duration,
}

impl Pool {
    pub(crate) fn new(url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        let pool = managed::Pool::builder(Connector::new(url, settings)?).max_size(settings.max_connections).build();
        let pool = pool.expect("deadpool needs a runtime only for time-outs of its own, and has none");
        Ok(Self { pool, acquire_timeout: settings.acquire_timeout })
    }

    /// A connection, for [`Connection::release`] or [`Connection::close`].
    pub(crate) async fn connection(&self) -> Result<Connection, DatabaseError> {
        // One timer covers all steps: under load, every request waits here.
        match tokio::time::timeout(self.acquire_timeout, self.pool.get()).await {
            Ok(connection) => Ok(Connection(Some(connection?))),
            Err(_elapsed) => Err(DatabaseError::NoConnection("waited too long")),
        }
    }

    /// A connection outside the pool. The server closes it after it was silent for `silence`.
    pub(crate) async fn unpooled(&self, silence: Duration) -> Result<PgConnection, DatabaseError> {
        match tokio::time::timeout(self.acquire_timeout, self.pool.manager().open(silence)).await {
            Ok(opened) => Ok(opened?),
            Err(_elapsed) => Err(DatabaseError::NoConnection("waited too long")),
        }
    }

    /// Opens idle connections until there are `number`, or until one cannot be opened.
    pub(crate) async fn open_idle(&self, number: usize) {
        let mut opened = Vec::new();
        while opened.len() < number.min(self.pool.status().max_size) {
            match tokio::time::timeout(self.acquire_timeout, self.pool.get()).await {
                Ok(Ok(connection)) => opened.push(connection),
                _ => break,
            }
        }
    }

    /// Closes the idle connections.
    pub(crate) fn close_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Sets the gauges of the pool's size and use.
    pub(crate) fn record_gauges(&self) {
        let status = self.pool.status();
        let used = status.size - status.available.min(status.size);
        metrics::gauge!("db_pool_connections", "state" => "idle").set(status.available as f64);
        metrics::gauge!("db_pool_connections", "state" => "used").set(used as f64);
        metrics::gauge!("db_pool_waiting").set(status.waiting as f64);
    }
}

/// A connection in use.
///
/// It returns to the pool only by [`Connection::release`]. If its caller is dropped in the middle of a statement or a
/// transaction, the connection is closed, and the server rolls back.
pub struct Connection(Option<Object<Connector>>);

impl Connection {
    /// Returns the connection to the pool, unless the outcome of its statement shows that it is broken.
    pub(crate) fn release<T>(mut self, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        let outcome = self.check(outcome);
        if !outcome.as_ref().is_err_and(DatabaseError::is_broken_connection) {
            drop(self.0.take());
        }
        outcome
    }

    /// Closes the connection.
    pub(crate) fn close<T>(self, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        self.check(outcome)
    }

    /// Discards all connections that are as old, if the outcome shows that this one is broken.
    fn check<T>(&self, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        let outcome = outcome.map_err(DatabaseError::from);
        if let (Err(error), Some(object)) = (&outcome, &self.0)
            && error.is_broken_connection()
            && let Some(pool) = Object::pool(object)
        {
            pool.manager().discard(object.generation);
        }
        outcome
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.as_ref().expect("held until it is released").connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.as_mut().expect("held until it is released").connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
