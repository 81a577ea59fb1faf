//! Running a statement on the side where the tables are, or a read on a standby of it.

mod standby;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::Instant;

use crate::answer::by;
use crate::database::Database;
use crate::error::{DatabaseError, blamed};
use crate::pool::Connection;
use crate::sqlstate::{Blame, LOCK_NOT_AVAILABLE};
use crate::standbys::Fallback;
use crate::switches::Switch;
use crate::switching::{is_seen_by, is_switching};
use crate::writes::Place;
use standby::Server;

/// How often one statement follows its tables. If they move more often, something is wrong with the move.
const MAX_FOLLOWS: u32 = 4;
/// How often one statement is prepared again, once for each failure. The next change of a schema may come between preparing
/// and running it, or the statement may get another connection, whose statements are as old.
const MAX_RENEWALS: u32 = 3;
/// The pause before a request waits for a connection again.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs a function over a connection, and returns the connection to the pool or closes it. A future of
/// `Result<T, DatabaseError>`.
///
/// ```ignore
/// let user = run!(app.database, connection => find_user(connection, id)).await?;
/// ```
///
/// The function gets a [`Connection`](crate::Connection), and returns a future of `Result<T, sqlx::Error>`. It must commit
/// everything or nothing: by one statement, or by a transaction of its own. If the database refuses it because its tables
/// have moved (SQLSTATE 42501) or are being moved (55P03), or because a prepared statement no longer fits the schema (0A000,
/// 26000), it has changed nothing, and is **called again**. Its arguments are the same: it may borrow them, but not consume
/// them.
///
/// A read may come from a standby if the call says which changes it must see:
///
/// ```ignore
/// let user = run!(app.database, after, connection => find_user(connection, id)).await?;
/// ```
///
/// `after` is an `Option<(i64, i64)>`, the epoch and the number of the newest of those transactions in the service's log.
/// `None` asks for none, and [`Transaction::NEWEST`](crate::Transaction::NEWEST) for all. What decides a write reads without
/// it. If the standby fails in whatever way, the function is called again on the primary.
///
/// This is a macro because today's compiler cannot prove that an async closure over a borrowed connection is `Send`.
#[macro_export]
macro_rules! run {
    ($database:expr, $connection:ident => $statement:expr) => {
        async { $crate::run!(@ $crate::Run::on(&$database), $connection => $statement) }
    };
    ($database:expr, $after:expr, $connection:ident => $statement:expr) => {
        async { $crate::run!(@ $crate::Run::reading(&$database, $after), $connection => $statement) }
    };
    (@ $run:expr, $connection:ident => $statement:expr) => {{
        let mut run = $run;
        loop {
            let mut held = match run.connection().await {
                Ok(held) => held,
                Err(error) => break Err(error),
            };
            let mut timer = held.take_timer();
            let $connection = &mut held;
            let outcome = timer.by(run.limit(), $statement).await;
            held.keep_timer(timer);
            let Some(reason) = run.reason_to_repeat(&outcome) else { break run.release(held, outcome) };
            if let Err(held) = run.repeat(reason, held).await {
                break run.release(held, outcome);
            }
        }
    }};
}

/// [`run!`](crate::run!) for a function that writes, and may wait for the rows of `key`, such as a user's id. Writes take a
/// part of the connections only, and those of one key a part of that.
///
/// ```ignore
/// change!(app.database, user.id, connection => update_user(connection, &user, &announcement)).await?;
/// ```
#[macro_export]
macro_rules! change {
    ($database:expr, $key:expr, $connection:ident => $statement:expr) => {
        async {
            match $crate::Run::change(&$database, &$key).await {
                Ok(run) => $crate::run!(@ run, $connection => $statement),
                Err(error) => Err(error),
            }
        }
    };
}

/// Why a refused statement may run again.
#[derive(Debug, Clone, Copy)]
pub enum Reason {
    /// The role lacked a right. A move of the tables takes the rights away.
    Denied,
    /// The connection's prepared statements no longer fit the schema.
    Outdated,
    /// The statement waited too long for a lock. A move of the tables locks them.
    Locked,
    /// The standby failed, or cancelled the statement.
    Standby(Fallback),
}

/// The parts of [`run!`](crate::run!).
pub struct Run<'a> {
    database: &'a Database,
    begun: Instant,
    server: Server<'a>,
    /// The switch that the newest connection follows.
    switch: Switch,
    follows: u32,
    /// How often a connection's statements have been thrown away.
    renewals: u32,
    /// The connection that the statement runs on again.
    kept: Option<Connection>,
    place: Option<Arc<Place>>,
}

impl<'a> Run<'a> {
    /// On `database`.
    pub fn on(database: &'a Database) -> Self {
        let (begun, server) = (Instant::now(), Server::Primary);
        Self { database, begun, server, switch: Switch::NONE, follows: 0, renewals: 0, kept: None, place: None }
    }

    /// On `database`, for a write of `key`.
    ///
    /// # Errors
    /// [`DatabaseError`] in bounded time if there are too many writes.
    pub async fn change(database: &'a Database, key: &impl Hash) -> Result<Self, DatabaseError> {
        let mut run = Self::on(database);
        while run.place.is_none() {
            match database.writes().place(key).await {
                Ok(place) => run.place = Some(Arc::new(place)),
                Err(error) => Box::pin(run.wait_on(error)).await?,
            }
        }
        Ok(run)
    }

    /// A connection to the side where the tables are, or to a standby.
    ///
    /// # Errors
    /// [`DatabaseError`] in bounded time if no connection can be had.
    pub async fn connection(&mut self) -> Result<Connection, DatabaseError> {
        if let Some(mut kept) = self.kept.take() {
            kept.begin_again();
            return Ok(kept);
        }
        if let Server::Any(after) = self.server
            && let Some(held) = Box::pin(self.standby(after)).await
        {
            return Ok(held);
        }
        loop {
            self.switch = self.database.switch().await?;
            let pool = self.database.pool(self.switch.side);
            let mut held = match pool.connection(self.database.acquire_limit(self.begun)).await {
                Ok(held) => held,
                Err(error) => {
                    Box::pin(self.wait_on(error)).await?;
                    continue;
                }
            };
            held.place.clone_from(&self.place);
            // Another request may have found a newer one while this one waited.
            if self.database.known_switch().is_some_and(|known| known != self.switch) {
                drop(held.release(Ok(())));
                continue;
            }
            if self.database.is_recent() {
                return Ok(held);
            }
            match Box::pin(by(self.limit(), self.database.is_newest(self.switch, &mut held))).await {
                Ok(true) => return Ok(held),
                // The tables have moved: the next round uses the other side.
                Ok(false) => drop(held.release(Ok(()))),
                Err(error) => return held.close(Err(error)),
            }
        }
    }

    /// When the statement must have ended.
    pub fn limit(&self) -> Option<Instant> {
        match (&self.server, self.database.standbys()) {
            (Server::Standby(_), Some(standbys)) => Some(standbys.limit(self.begun)),
            _ => self.database.answer_limit(self.begun),
        }
    }

    /// Goes on waiting for a connection or a place, if `error` says that the wait was too long, and the tables are being
    /// switched.
    async fn wait_on(&self, error: DatabaseError) -> Result<(), DatabaseError> {
        if error.is_late() && self.has_time() && is_switching(self.database).await {
            // The wait that was too long may have been none at all.
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        }
        if let DatabaseError::NoConnection(reason) = error {
            metrics::counter!("db_requests_shed_total", "reason" => reason).increment(1);
        }
        Err(error)
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.database.acquire_limit(self.begun)
    }

    /// Why the statement may run again. `None` after a success, and after an error that would repeat itself.
    pub fn reason_to_repeat<T>(&self, outcome: &Result<T, sqlx::Error>) -> Option<Reason> {
        let error = outcome.as_ref().err()?;
        if let Server::Standby(_) = self.server {
            return Some(Reason::Standby(Fallback::of(error)));
        }
        if blamed(error) == Some(Blame::Statements) {
            return (self.renewals < MAX_RENEWALS).then_some(Reason::Outdated);
        }
        let sqlx::Error::Database(error) = error else { return None };
        match error.code().as_deref() {
            Some("42501") if self.database.may_move() && self.follows < MAX_FOLLOWS => Some(Reason::Denied),
            Some(LOCK_NOT_AVAILABLE) if self.database.may_move() && self.has_time() => Some(Reason::Locked),
            _ => None,
        }
    }

    /// Prepares for running the statement again.
    ///
    /// # Errors
    /// The connection itself, if that would not help.
    pub async fn repeat(&mut self, reason: Reason, refused: Connection) -> Result<(), Connection> {
        // Boxed: what happens rarely should not make the future of every request larger.
        match reason {
            Reason::Denied => Box::pin(self.follow(refused)).await,
            Reason::Outdated => Box::pin(self.renew(refused)).await,
            Reason::Locked => Box::pin(self.try_again(refused)).await,
            Reason::Standby(reason) => {
                self.leave_standby(reason, refused);
                Ok(())
            }
        }
    }

    /// Follows the tables, if they have moved.
    async fn follow(&mut self, mut refused: Connection) -> Result<(), Connection> {
        self.follows += 1;
        let limit = self.limit();
        match self.database.follow(self.switch, &mut refused, limit).await {
            Ok(true) => {
                drop(refused.release(Ok(())));
                return Ok(());
            }
            Ok(false) => {}
            Err(_) => refused.doubt(),
        }
        Err(refused)
    }

    /// Throws the connection's prepared statements away.
    async fn renew(&mut self, mut refused: Connection) -> Result<(), Connection> {
        self.renewals += 1;
        // If this fails, the connection is broken, and another one is used.
        match by(self.limit(), refused.clear_cached_statements()).await {
            Ok(()) => {
                refused.forget_prepared();
                self.kept = Some(refused);
            }
            Err(error) => drop(refused.close::<()>(Err(error))),
        }
        Ok(())
    }

    /// Waits for the lock again, if the tables are being switched.
    async fn try_again(&mut self, mut refused: Connection) -> Result<(), Connection> {
        match is_seen_by(self.database, &mut refused, self.database.acquire_limit(self.begun)).await {
            Ok(true) => {
                self.kept = Some(refused);
                return Ok(());
            }
            Ok(false) => {}
            Err(_) => refused.doubt(),
        }
        Err(refused)
    }

    /// Returns the connection to the pool. It closes the connection if the statement showed that it is broken, and then all
    /// that are as old: after a restart of the server one request fails, not one for each connection.
    ///
    /// # Errors
    /// What the statement's error means.
    pub fn release<T>(self, connection: Connection, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        if let (Server::Standby(_), Some(standbys)) = (&self.server, self.database.standbys()) {
            standbys.count(Ok(()));
            return connection.release(outcome);
        }
        let outcome = connection.release(outcome);
        if let Some(place) = &self.place {
            place.note(&outcome);
        }
        self.database.note_end(self.begun);
        outcome
    }
}
