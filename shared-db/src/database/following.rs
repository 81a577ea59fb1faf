//! Which switch of the tables a process knows, and how it follows a newer one.

use std::sync::atomic::Ordering;

use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};

use super::{Database, Next};
use crate::answer::by;
use crate::error::DatabaseError;
use crate::switches::{Side, Switch, has_switches, is_without_switches, newest_switch};

impl Database {
    /// The newest switch that this process knows. If it knows none, it asks the databases.
    pub(crate) async fn switch(&self) -> Result<Switch, DatabaseError> {
        match (&self.next, self.known_switch()) {
            (None, _) => Ok(Switch::NONE),
            (_, Some(known)) => Ok(known),
            (Some(next), None) => {
                let begun = Instant::now();
                let found = timeout_at(self.acquire_limit(begun), self.find_switch(next));
                Box::pin(found).await.unwrap_or(Err(DatabaseError::LATE))
            }
        }
    }

    /// Asks the source, and also the target if the tables have left the source: they may have come back. A database that
    /// does not answer is an error, since its switch is unknown.
    async fn find_switch(&self, next: &Next) -> Result<Switch, DatabaseError> {
        let now = next.milliseconds();
        let mut newest = Switch::NONE;
        for side in [Side::Source, Side::Target] {
            let begun = Instant::now();
            let mut connection = self.pool(side).connection(self.acquire_limit(begun)).await?;
            let found = by(self.answer_limit(begun), next.ask(side, &mut connection)).await;
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
        let newest = next.ask(seen.side, connection).await?;
        let newer = newest.filter(|newest| newest.generation > seen.generation);
        if let Some(newest) = newer {
            self.apply(next, newest);
        }
        next.note_asked(now);
        Ok(newer.is_none())
    }

    /// Follows the tables after a statement was refused on the side of `seen`. `false` if they have not moved.
    ///
    /// # Errors
    /// The question's.
    pub(crate) async fn follow(
        &self,
        seen: Switch,
        refused: &mut PgConnection,
        limit: Option<Instant>,
    ) -> Result<bool, sqlx::Error> {
        let Some(next) = &self.next else { return Ok(false) };
        if self.known_switch() == Some(seen) {
            let newest = by(limit, next.ask(seen.side, refused)).await?;
            let newer = newest.filter(|newest| newest.generation > seen.generation && newest.side != seen.side);
            let Some(newer) = newer else { return Ok(false) };
            self.apply(next, newer);
        }
        // `alone` selects over this statement and the switch in one task: it must drop its work before the statement runs
        // again.
        tokio::task::yield_now().await;
        Ok(true)
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
            self.leave(to.side.other());
            // Whoever waited for the switch runs now, all at once.
            self.pool(to.side).open_slowly();
            next.sightings.note(true);
            next.waits.begin();
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

impl Next {
    /// Asks the database of a side for the newest switch that it knows: in one round trip during a move, without an error of
    /// the server before it, and with one error at most after it.
    async fn ask(&self, side: Side, connection: &mut PgConnection) -> Result<Option<Switch>, sqlx::Error> {
        let known = &self.has_switches[side as usize];
        if !known.load(Ordering::Relaxed) && !has_switches(connection).await? {
            return Ok(None);
        }
        let newest = newest_switch(connection, self.owner).await;
        let is_missing = newest.as_ref().is_err_and(is_without_switches);
        known.store(!is_missing, Ordering::Relaxed);
        if is_missing { Ok(None) } else { newest }
    }
}
