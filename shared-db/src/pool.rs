//! A pool of connections to one database.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use deadpool::managed::{self, Object, QueueMode};
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::Timer;
use crate::connector::Connector;
use crate::error::DatabaseError;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::statements::Statement;
use crate::traces;
use crate::url::{DatabaseUrl, InvalidUrl};
use crate::writes::Place;

/// The longest wait for the end of a statement whose client has left. Postgres itself ends statements sooner.
const LAST_STATEMENT: Duration = Duration::from_secs(10);

/// A pool. It opens a connection when one is needed, so it can be made while the database is away.
///
/// It makes no round trip of its own. sqlx's `PgPool` pings at each release, in a task of its own: that costs Postgres a
/// round trip for every request.
#[derive(Clone)]
pub(crate) struct Pool {
    pool: managed::Pool<Connector>,
    /// As many places as the pool has connections, so nobody waits inside the pool.
    queue: Arc<Queue>,
    acquire_timeout: Duration,
}

impl Pool {
    pub(crate) fn new(url: DatabaseUrl, settings: &Settings) -> Result<Self, InvalidUrl> {
        let Settings { max_connections, queue_length, queue_timeout, acquire_timeout, .. } = *settings;
        // The connection that was used last knows most: its backend has read the catalog and made its plans.
        let pool = managed::Pool::builder(Connector::new(url, settings)?).max_size(max_connections);
        let pool = pool.queue_mode(QueueMode::Lifo).build();
        let pool = pool.expect("deadpool needs a runtime only for time-outs of its own, and has none");
        Ok(Self { pool, queue: Arc::new(Queue::new(max_connections, queue_length, queue_timeout)), acquire_timeout })
    }

    /// A connection until `limit`, for [`Connection::release`] or [`Connection::close`].
    pub(crate) async fn connection(&self, limit: Instant) -> Result<Connection, DatabaseError> {
        let turn = self.queue.place(limit).await?;
        let pool = self.pool.clone();
        let mut get = Box::pin(async move { (pool.get().await, turn) });
        // An idle connection that was used just now is there at once.
        let (object, turn) = match poll_once(get.as_mut()) {
            Poll::Ready(got) => got,
            Poll::Pending => match Box::pin(timeout_at(limit, self.finish(get))).await {
                Ok(got) => got?,
                Err(_elapsed) => return Err(DatabaseError::LATE),
            },
        };
        let since = Instant::now();
        Ok(Connection { object: Some(object?), turn: Some(turn), place: None, is_doubtful: false, since })
    }

    /// Opens or checks a connection in a task of its own. If the client leaves meanwhile, the connection goes to the pool.
    async fn finish<T: Send + 'static>(&self, get: impl Future<Output = T> + Send + 'static) -> Result<T, DatabaseError> {
        let opened = tokio::spawn(timeout(self.acquire_timeout, get));
        let opened = async { opened.await.ok().and_then(Result::ok).ok_or(DatabaseError::LATE) };
        traces::within("open a connection", opened).await
    }

    /// What opens its connections.
    pub(crate) fn manager(&self) -> &Connector {
        self.pool.manager()
    }

    /// A connection outside the pool. The server closes it after it was silent for `silence`.
    pub(crate) async fn unpooled(&self, silence: Duration) -> Result<PgConnection, DatabaseError> {
        match timeout(self.acquire_timeout, self.manager().open(silence)).await {
            Ok(opened) => Ok(opened?),
            Err(_elapsed) => Err(DatabaseError::LATE),
        }
    }

    /// Opens idle connections until there are `number`, or until one cannot be opened.
    pub(crate) async fn open_idle(&self, number: usize) {
        let mut opened = Vec::new();
        while opened.len() < number.min(self.pool.status().max_size) {
            match timeout(self.acquire_timeout, self.pool.get()).await {
                Ok(Ok(connection)) => opened.push(connection),
                _ => break,
            }
        }
    }

    /// Gives out few connections at first, and all soon: see [`Queue::open_slowly`].
    pub(crate) fn open_slowly(&self) {
        self.queue.open_slowly();
    }

    /// How many connections there are.
    pub(crate) fn size(&self) -> usize {
        self.pool.status().size
    }

    /// Closes the idle connections.
    pub(crate) fn close_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Closes idle connections until about `kept` are left, those that were used last.
    pub(crate) fn close_surplus(&self, kept: usize) {
        // The pool has them in the order of their use, the last one at the end.
        let mut surplus = self.pool.status().available.saturating_sub(kept);
        self.pool.retain(|_, _| {
            let stays = surplus == 0;
            surplus = surplus.saturating_sub(1);
            stays
        });
    }

    /// Sets the gauges of the pool's size and use.
    pub(crate) fn record_gauges(&self) {
        let status = self.pool.status();
        let used = status.size - status.available.min(status.size);
        metrics::gauge!("db_pool_connections", "state" => "idle").set(status.available as f64);
        metrics::gauge!("db_pool_connections", "state" => "used").set(used as f64);
        metrics::gauge!("db_pool_connections_max").set(status.max_size as f64);
        metrics::gauge!("db_pool_waiting").set(self.queue.waiting() as f64);
    }
}

/// A connection in use.
///
/// It returns to the pool by [`Connection::release`]. If its caller is dropped in the middle of a statement or a
/// transaction, because a client has left, a task waits for the statement's end and then returns it. So a client that leaves
/// costs no new connection.
pub struct Connection {
    object: Option<Object<Connector>>,
    turn: Option<OwnedSemaphorePermit>,
    /// The place of the write that uses it.
    pub(crate) place: Option<Arc<Place>>,
    /// Whether a statement on it may be under way still.
    is_doubtful: bool,
    /// When it was handed out for its newest statement.
    since: Instant,
}

impl Connection {
    /// Returns the connection to the pool, unless the outcome of its statement shows that it is broken.
    pub(crate) fn release<T>(mut self, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        let outcome = self.check(outcome);
        if outcome.as_ref().is_err_and(DatabaseError::is_broken_connection) {
            self.discard();
        }
        if !self.is_doubtful {
            drop(self.object.take());
        }
        outcome
    }

    /// Closes the connection.
    pub(crate) fn close<T>(mut self, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        let outcome = self.check(outcome);
        self.discard();
        outcome
    }

    /// Its timer, for the statement that uses the connection meanwhile.
    pub fn take_timer(&mut self) -> Timer {
        self.object.as_mut().map(|object| std::mem::take(&mut object.timer)).unwrap_or_default()
    }

    /// Gives the timer back for the next statement.
    pub fn keep_timer(&mut self, timer: Timer) {
        if let Some(object) = &mut self.object {
            object.timer = timer;
        }
    }

    /// Notes that a statement on it failed or was given up. It is checked before it returns to the pool.
    pub(crate) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// Notes that another statement begins.
    pub(crate) fn begin_again(&mut self) {
        self.since = Instant::now();
    }

    /// When the server was started that it leads to, once it was asked.
    pub(crate) fn server(&mut self) -> &mut Option<i64> {
        &mut self.object.as_mut().expect("held until it is released").server
    }

    /// Whether this statement was prepared on it before a request needed it.
    pub(crate) fn has_prepared(&self, statement: &Statement) -> bool {
        self.object.as_ref().is_some_and(|object| object.prepared.contains(&statement.number()))
    }

    /// Forgets which statements are prepared on it.
    pub(crate) fn forget_prepared(&mut self) {
        if let Some(object) = &mut self.object {
            object.prepared.clear();
        }
    }

    /// Notes that this statement is prepared on it.
    pub(crate) fn note_prepared(&mut self, statement: &Statement) {
        if let Some(object) = &mut self.object {
            object.prepared.insert(statement.number());
        }
    }

    fn discard(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }

    /// Discards all connections that are as old, if the outcome shows that this one is broken, and not this one alone.
    fn check<T>(&self, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        let outcome = outcome.map_err(DatabaseError::from);
        if let (Err(error), Some(object)) = (&outcome, &self.object)
            && let Some(pool) = Object::pool(object)
        {
            // A statement that began late is given up before the server ends it, which says nothing against the server.
            let had_time = || self.since.elapsed() >= pool.manager().statement_timeout();
            if error.is_broken_connection() && (!error.is_unanswered() || had_time()) {
                pool.manager().discard(object.generation);
            } else if error.is_read_only() {
                pool.manager().leave_read_only(object.generation);
            }
        }
        outcome
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.object.as_ref().expect("held until it is released").connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.object.as_mut().expect("held until it is released").connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut object) = self.object.take() else { return };
        let held = (self.turn.take(), self.place.take());
        let Ok(runtime) = Handle::try_current() else { return drop(Object::take(object)) };
        runtime.spawn(async move {
            if !matches!(timeout(LAST_STATEMENT, end_statement(&mut object.connection)).await, Ok(Ok(()))) {
                drop(Object::take(object));
            }
            drop(held);
        });
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for the end of what the connection does, and rolls back the transaction that is open on it.
async fn end_statement(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match connection.ping().await {
        // The error of the statement itself. The connection is at its end with the next answer.
        Err(sqlx::Error::Database(_)) => connection.ping().await,
        ended => ended,
    }
}
