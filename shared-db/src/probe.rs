//! A connection of its own for checks of the database's health. A check says whether the database can be used, and does not
//! depend on how busy the pool is.

use std::sync::Arc;
use std::time::Instant;

use sqlx::PgConnection;
use tokio::sync::{Mutex, MutexGuard};

use crate::switches::Side;

/// The connection that checks use, one after the other.
#[derive(Clone, Default)]
pub(crate) struct Probe(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// The side that the connection leads to.
    connection: Option<(Side, PgConnection)>,
    /// When the newest check began that found nothing wrong.
    passed: Option<Instant>,
    was_on_standby: bool,
}

/// The turn of one check. A check that fails or is dropped leaves no connection to the next one.
pub(crate) struct Turn<'a> {
    kept: MutexGuard<'a, Kept>,
    asked: Instant,
    begun: Instant,
}

impl Probe {
    /// Waits for the turn.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let asked = Instant::now();
        Turn { kept: self.0.lock().await, asked, begun: Instant::now() }
    }
}

impl Turn<'_> {
    /// Whether another check has passed that began while this one waited for its turn. So many checks at once cost two.
    pub(crate) fn has_passed(&self) -> bool {
        self.kept.passed.is_some_and(|begun| begun >= self.asked)
    }

    /// The connection of an earlier check, if it leads to `side`. It may have broken since.
    pub(crate) fn take(&mut self, side: Side) -> Option<PgConnection> {
        self.kept.connection.take().filter(|(kept, _)| *kept == side).map(|(_, connection)| connection)
    }

    /// Keeps the connection for the next check, after a question that was none.
    pub(crate) fn put_back(&mut self, side: Side, connection: PgConnection) {
        self.kept.connection = Some((side, connection));
    }

    /// Notes that this check has passed on a standby. It keeps no connection: the next one may lead to the primary.
    pub(crate) fn pass_on_standby(&mut self) {
        self.kept.passed = Some(self.begun);
        self.kept.was_on_standby = true;
    }

    /// Whether the check before was on a standby. Then the pool may have connections to it.
    pub(crate) fn was_on_standby(&mut self) -> bool {
        std::mem::take(&mut self.kept.was_on_standby)
    }

    /// Keeps the connection for the next check, and whether this one has passed.
    pub(crate) fn keep(&mut self, side: Side, connection: PgConnection, passed: bool) {
        self.kept.connection = Some((side, connection));
        self.kept.passed = passed.then_some(self.begun);
    }
}
