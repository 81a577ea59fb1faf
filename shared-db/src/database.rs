//! A service's database, and the move of its tables to another server and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::watch;

use crate::connector::InvalidUrl;
use crate::error::DatabaseError;
use crate::pool::Pool;
use crate::settings::Settings;
use crate::switches::{Side, Switch, newest_switch};

/// How long a process trusts the newest switch that it knows before it asks again.
///
/// splitctl waits longer than this between two switches. So a process that slept through both of them asks again, before it
/// can use a side that was left and will open again.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A service's database, or two of them if its tables may move: see [`Database::moving`].
#[derive(Clone)]
pub struct Database {
    source: Pool,
    next: Option<Arc<Next>>,
}

/// The database to which the tables may move.
struct Next {
    owner: &'static str,
    target: Pool,
    /// The newest switch that this process knows; `None` until it has asked.
    switch: watch::Sender<Option<Switch>>,
    begun: Instant,
    /// Milliseconds from `begun` to the newest question about the switch.
    asked: AtomicU64,
}

impl Next {
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note_asked(&self, at: u64) {
        self.asked.fetch_max(at, Ordering::Relaxed);
    }

    fn is_recent(&self) -> bool {
        u128::from(self.milliseconds().saturating_sub(self.asked.load(Ordering::Relaxed))) < TRUSTED_FOR.as_millis()
    }
}

impl Database {
    /// The database at `url`. It is not opened before it is needed, so it may be away.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        Ok(Self { source: Pool::new(url, settings)?, next: None })
    }

    /// The same database, where the tables of `owner` may move to the database at `url` and back.
    ///
    /// The process asks where they are before its first statement, and again if it asked more than a second ago. Between two
    /// questions, a refused statement shows that they have moved.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn moving(self, owner: &'static str, url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        let next = Next {
            owner,
            target: Pool::new(url, settings)?,
            switch: watch::Sender::new(None),
            begun: Instant::now(),
            asked: AtomicU64::new(0),
        };
        Ok(Self { next: Some(Arc::new(next)), ..self })
    }

    /// The newest switch that this process has followed. `None` if it has not asked yet, or if the tables cannot move.
    pub fn known_switch(&self) -> Option<Switch> {
        *self.next.as_ref()?.switch.borrow()
    }

    /// Sets the gauges of the pool in use, and of the known switch.
    pub fn record_gauges(&self) {
        let known = self.known_switch();
        self.pool(known.unwrap_or(Switch::NONE).side).record_gauges();
        if let Some(switch) = known {
            metrics::gauge!("db_switch_generation").set(switch.generation as f64);
            metrics::gauge!("db_on_target").set(f64::from(u8::from(switch.side == Side::Target)));
        }
    }

    /// Whether the tables may move.
    pub(crate) fn may_move(&self) -> bool {
        self.next.is_some()
    }

    /// The pool of one side.
    pub(crate) fn pool(&self, side: Side) -> &Pool {
        match (side, &self.next) {
            (Side::Target, Some(next)) => &next.target,
            _ => &self.source,
        }
    }

    /// The newest switch that this process knows. If it knows none, it asks the databases.
    pub(crate) async fn switch(&self) -> Result<Switch, DatabaseError> {
        match (&self.next, self.known_switch()) {
            (None, _) => Ok(Switch::NONE),
            (_, Some(known)) => Ok(known),
            (Some(next), None) => Box::pin(self.find_switch(next)).await,
        }
    }

    /// Asks the source, and also the target if the tables have left the source: they may have come back. A database that
    /// does not answer is an error, since its switch is unknown.
    async fn find_switch(&self, next: &Next) -> Result<Switch, DatabaseError> {
        let now = next.milliseconds();
        let mut newest = Switch::NONE;
        for side in [Side::Source, Side::Target] {
            let mut connection = self.pool(side).connection().await?;
            let found = newest_switch(&mut connection, next.owner).await;
            let found = connection.release(found)?;
            newest = found.filter(|found| found.generation > newest.generation).unwrap_or(newest);
            if newest.side == Side::Source {
                break;
            }
        }
        self.apply(next, newest);
        next.note_asked(now);
        Ok(self.known_switch().unwrap_or(newest))
    }

    /// Whether this process has asked for the newest switch recently enough.
    pub(crate) fn is_recent(&self) -> bool {
        self.next.as_ref().is_none_or(|next| next.is_recent())
    }

    /// Asks the side of `seen` whether `seen` is still the newest switch, and follows a newer one. The side that the tables
    /// have left knows the newer switch.
    pub(crate) async fn is_newest(&self, seen: Switch, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let Some(next) = &self.next else { return Ok(true) };
        let now = next.milliseconds();
        let newest = newest_switch(connection, next.owner).await?;
        let newer = newest.filter(|newest| newest.generation > seen.generation);
        if let Some(newest) = newer {
            self.apply(next, newest);
        }
        next.note_asked(now);
        Ok(newer.is_none())
    }

    /// Follows the tables after a statement was refused on the side of `seen`. `false` if they have not moved.
    pub(crate) async fn follow(&self, seen: Switch, refused: &mut PgConnection) -> bool {
        let Some(next) = &self.next else { return false };
        if self.known_switch() == Some(seen) {
            // If this fails too, the caller returns the statement's own error.
            let Ok(Some(newest)) = newest_switch(refused, next.owner).await else { return false };
            if newest.generation <= seen.generation || newest.side == seen.side {
                return false;
            }
            self.apply(next, newest);
        }
        // `alone` selects over this statement and the switch in one task: it must drop its work before the statement runs
        // again.
        tokio::task::yield_now().await;
        true
    }

    /// Uses the side of the switch `to` from now on, unless a switch is known that is as new.
    fn apply(&self, next: &Next, to: Switch) {
        let mut before = None;
        let changed = next.switch.send_if_modified(|known| {
            before = *known;
            let newer = known.is_none_or(|known| known.generation < to.generation);
            if newer {
                *known = Some(to);
            }
            newer
        });
        if !changed {
            return;
        }
        let (owner, side, generation) = (next.owner, to.side.as_str(), to.generation);
        if before.is_some() {
            tracing::info!(owner, side, generation, "the tables have moved; this process follows them");
            // Connections in use are closed when they are returned.
            self.pool(to.side.other()).close_idle();
        } else {
            tracing::info!(owner, side, generation, "the tables are on this side");
        }
    }

    /// Waits until this process knows another switch than `seen`.
    pub(crate) async fn switched(&self, seen: Switch) {
        if let Some(next) = &self.next
            && next.switch.subscribe().wait_for(|known| known.is_some_and(|known| known != seen)).await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
