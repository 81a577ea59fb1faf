//! The pools of connections, and which of them is in use.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Object, Pool};
use sqlx::PgConnection;
use tokio::sync::watch;

use crate::connector::{Connector, InvalidUrl};
use crate::error::DatabaseError;
use crate::switches::{Side, Switch, newest_switch};

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

    fn pool(&self, url: &str) -> Result<Pool<Connector>, InvalidUrl> {
        let pool = Pool::builder(Connector::new(url, self)?).max_size(self.max_connections).build();
        Ok(pool.expect("it has no time-outs of its own, which would need a runtime"))
    }
}

/// The size and use of the pool that is in use.
#[derive(Debug, Clone, Copy)]
pub struct PoolStatus {
    /// Connections open.
    pub open: usize,
    /// Of these, connections waiting for work.
    pub idle: usize,
    /// Callers waiting for a connection.
    pub waiting: usize,
}

/// A service's database; or two, if its tables are to move from one to the other while it runs: see [`Database::moving`].
///
/// Its pools make no round trip of their own: sqlx's `PgPool` pings at every acquire and release, which doubles the cost of
/// a short request.
#[derive(Clone)]
pub struct Database {
    source: Pool<Connector>,
    next: Option<Arc<Next>>,
    acquire_timeout: Duration,
}

/// Where the tables may move.
struct Next {
    owner: &'static str,
    target: Pool<Connector>,
    /// The newest switch that this process knows of; `None` until it has asked.
    switch: watch::Sender<Option<Switch>>,
    /// When this began, and how many milliseconds later it was last asked whether that is still the newest one.
    begun: Instant,
    asked: AtomicU64,
}

/// How long a process believes in what it knows without asking again. Whoever moves the tables waits for longer than that from
/// one switch to the next: so a process that slept through two of them never takes the side that was left, and is about to be
/// opened again, for the one that is in use.
const BELIEVED: Duration = Duration::from_secs(1);

impl Next {
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note_asked(&self, at: u64) {
        self.asked.fetch_max(at, Ordering::Relaxed);
    }

    fn is_sure(&self) -> bool {
        u128::from(self.milliseconds().saturating_sub(self.asked.load(Ordering::Relaxed))) < BELIEVED.as_millis()
    }
}

impl Database {
    /// Prepares a pool. Nothing is opened before it is needed, so a database that is away does not matter yet.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        Ok(Self { source: settings.pool(url)?, next: None, acquire_timeout: settings.acquire_timeout })
    }

    /// The same, where the tables of `owner` may move to the database at `url`, and back. Before its first statement it asks
    /// where they are, and again before a statement if that was more than a second ago; in between, a refused statement tells.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn moving(self, owner: &'static str, url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        let next = Next {
            owner,
            target: settings.pool(url)?,
            switch: watch::Sender::new(None),
            begun: Instant::now(),
            asked: AtomicU64::new(0),
        };
        Ok(Self { next: Some(Arc::new(next)), ..self })
    }

    /// The newest switch that this process has followed. `None` if it has not asked yet, or has nothing to ask about.
    pub fn known_switch(&self) -> Option<Switch> {
        *self.next.as_ref()?.switch.borrow()
    }

    /// Whether there is another side at all.
    pub(crate) fn may_move(&self) -> bool {
        self.next.is_some()
    }

    /// Where the tables are, as far as this process knows. If it does not know yet, the databases are asked.
    pub(crate) async fn switch(&self) -> Result<Switch, DatabaseError> {
        match (&self.next, self.known_switch()) {
            (None, _) => Ok(Switch::NONE),
            (_, Some(known)) => Ok(known),
            (Some(next), None) => Box::pin(self.look_up(next)).await,
        }
    }

    /// Asks the source, and the target if the source has been left: the tables may have come back. Nothing is taken for
    /// granted about a database that does not answer.
    async fn look_up(&self, next: &Next) -> Result<Switch, DatabaseError> {
        let now = next.milliseconds();
        let mut newest = Switch::NONE;
        for side in [Side::Source, Side::Target] {
            let mut connection = self.connection(side).await?;
            let found = newest_switch(&mut connection, next.owner).await;
            let found = connection.settle(found, true)?;
            newest = found.filter(|found| found.generation > newest.generation).unwrap_or(newest);
            if newest.side == Side::Source {
                break;
            }
        }
        self.turn(next, newest);
        next.note_asked(now);
        Ok(self.known_switch().unwrap_or(newest))
    }

    /// Whether it is known well enough that `seen` is the newest switch.
    pub(crate) fn is_sure(&self) -> bool {
        self.next.as_ref().is_none_or(|next| next.is_sure())
    }

    /// Asks the side of `seen` whether that still is the newest switch, and turns if it is not. A side that was left knows.
    pub(crate) async fn look_again(&self, seen: Switch, there: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let Some(next) = &self.next else { return Ok(true) };
        let now = next.milliseconds();
        let newer = newest_switch(there, next.owner).await?.filter(|newest| newest.generation > seen.generation);
        if let Some(newest) = newer {
            self.turn(next, newest);
        }
        next.note_asked(now);
        Ok(newer.is_none())
    }

    /// Whether a statement that was refused, by a database where `seen` was the newest switch known, is to be run again.
    pub(crate) async fn follow(&self, seen: Switch, refused: &mut PgConnection) -> bool {
        let Some(next) = &self.next else { return false };
        if self.known_switch() == Some(seen) {
            // Its own error stands if this fails, too.
            let Ok(Some(newest)) = newest_switch(refused, next.owner).await else { return false };
            if newest.generation <= seen.generation || newest.side == seen.side {
                return false;
            }
            self.turn(next, newest);
        }
        // To let go of what waits for this beside the statement, in the same task, before it goes on: see `alone`.
        tokio::task::yield_now().await;
        true
    }

    /// Uses the other side from now on, unless what is known is as new.
    fn turn(&self, next: &Next, to: Switch) {
        let mut before = None;
        let turned = next.switch.send_if_modified(|known| {
            before = *known;
            let newer = known.is_none_or(|known| known.generation < to.generation);
            if newer {
                *known = Some(to);
            }
            newer
        });
        if !turned {
            return;
        }
        let (owner, side, generation) = (next.owner, to.side.as_str(), to.generation);
        if before.is_some() {
            tracing::info!(owner, side, generation, "the tables have moved; this process follows them");
            // Those in use follow when they are given back.
            self.pool(to.side.other()).retain(|_, _| false);
        } else {
            tracing::info!(owner, side, generation, "this is where the tables are");
        }
    }

    /// Waits until another switch is known than `seen`.
    pub(crate) async fn turned(&self, seen: Switch) {
        if let Some(next) = &self.next
            && next.switch.subscribe().wait_for(|known| known.is_some_and(|known| known != seen)).await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    fn pool(&self, side: Side) -> &Pool<Connector> {
        match (side, &self.next) {
            (Side::Target, Some(next)) => &next.target,
            _ => &self.source,
        }
    }

    /// A connection of a pool, to be given back by [`Connection::settle`].
    pub(crate) async fn connection(&self, side: Side) -> Result<Connection, DatabaseError> {
        // One timer for all of it: under load, every request waits.
        match tokio::time::timeout(self.acquire_timeout, self.pool(side).get()).await {
            Ok(connection) => Ok(Connection(Some(connection?))),
            Err(_elapsed) => Err(DatabaseError::NoConnection("waited too long")),
        }
    }

    /// Opens idle connections up to `number`, as long as that works.
    pub(crate) async fn open_idle(&self, side: Side, number: usize) {
        let pool = self.pool(side);
        let mut opened = Vec::new();
        while opened.len() < number.min(pool.status().max_size) {
            match tokio::time::timeout(self.acquire_timeout, pool.get()).await {
                Ok(Ok(connection)) => opened.push(connection),
                _ => break,
            }
        }
    }

    /// A connection beside the pool, which the server closes after a `silence` of that length.
    pub(crate) async fn unpooled(&self, side: Side, silence: Duration) -> Result<PgConnection, DatabaseError> {
        let open = self.pool(side).manager().open(silence);
        match tokio::time::timeout(self.acquire_timeout, open).await {
            Ok(opened) => Ok(opened?),
            Err(_elapsed) => Err(DatabaseError::NoConnection("waited too long")),
        }
    }

    /// The pool's size and use now.
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.pool(self.known_switch().unwrap_or(Switch::NONE).side).status();
        PoolStatus { open: status.size, idle: status.available, waiting: status.waiting }
    }
}

/// A connection in use.
///
/// It goes back to the pool only by [`Connection::settle`]. Dropped without (because the caller went away in the middle of a
/// statement, or of a transaction) it is closed, and the server takes back whatever was open.
pub struct Connection(Option<Object<Connector>>);

impl Connection {
    /// Gives it back if it is to be kept and is not broken.
    pub(crate) fn settle<T>(mut self, outcome: Result<T, sqlx::Error>, keep: bool) -> Result<T, DatabaseError> {
        let outcome = outcome.map_err(DatabaseError::from);
        if let (Err(error), Some(object)) = (&outcome, &self.0)
            && error.is_broken_connection()
        {
            if let Some(pool) = Object::pool(object) {
                pool.manager().discard(object.generation);
            }
        } else if keep {
            drop(self.0.take());
        }
        outcome
    }
}

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
