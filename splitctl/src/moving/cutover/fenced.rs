//! The steps of a cutover while writers wait.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{PgConnection, query, query_scalar};

use super::pause::{Clock, Pause, limits};
use super::ready::{Ready, Sessions};
use super::steps::Attempt;
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::manifest::Owner;
use crate::moving::journal::State;
use crate::moving::switches::Switch;
use crate::moving::{Database, crash_point, marker, sequences, shape, slot};

/// How long a session may take to end.
const END: Duration = Duration::from_secs(30);

/// A try that holds the locks.
pub(super) struct Fenced<'a> {
    pub(super) from: &'a mut Database,
    pub(super) to: &'a mut Database,
    pub(super) owner: &'a Owner,
    pub(super) owner_name: &'a str,
    pub(super) state: &'a State,
    pub(super) ready: &'a Ready,
    pub(super) max_pause: Duration,
    /// When writers go on, whatever happens.
    pub(super) deadline: Instant,
    /// The process of the server that holds the locks.
    pub(super) process: i32,
    pub(super) sessions: Sessions,
    pub(super) clock: Clock,
    pub(super) pause: Pause,
    /// Where the stream back begins.
    pub(super) way_back: String,
}

impl Attempt<'_> {
    /// Locks the tables and runs the steps, for `--max-pause` at most, the wait for the lock included. Readers go on
    /// meanwhile. If a step fails, the locks are released before this returns. If splitctl stands still, the server releases
    /// them.
    pub(super) async fn while_writers_wait(
        &mut self,
        steps: impl AsyncFnOnce(&mut Fenced<'_>) -> Result<()>,
    ) -> Result<Pause> {
        let limit = self.options.max_pause;
        let mut fenced = self.lock().await?;
        let done = tokio::time::timeout(fenced.left(), steps(&mut fenced)).await;
        let too_long = |_| Err(Refused(format!("writers would have waited longer than {limit:?} (--max-pause)")).into());
        match done.unwrap_or_else(too_long) {
            Ok(()) => {
                let Fenced { clock, pause, .. } = fenced;
                Ok(self.turn_poolers(clock, pause).await)
            }
            Err(error) => {
                fenced.release().await?;
                Err(error)
            }
        }
    }
}

impl Fenced<'_> {
    /// How long writers may still wait.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Step 6. Sends the marker through the stream. No writer is left, so when it arrives, everything has. Meanwhile the
    /// definitions are compared again.
    pub(super) async fn drain_stream(&mut self) -> Result<()> {
        let (limit, left) = (self.max_pause, self.left());
        let token = marker::set(&mut self.sessions.beside, self.owner_name).await?;
        let silence = limits(self.left());
        let (limited, arrived, shape) = tokio::join!(
            // The transaction is silent until the marker has arrived.
            execute(&mut self.from.connection, silence),
            marker::wait(&mut self.to.connection, self.owner_name, token, left),
            shape::stands(&mut self.sessions.beside, self.owner, &self.state.begun.shape, &self.ready.stamp),
        );
        limited?;
        require!(arrived?, "the stream took longer than {limit:?} (--max-pause) while writers waited: nothing was changed");
        require!(shape?, "the tables' definitions have just changed: nothing was switched");
        let limits = limits(self.left());
        execute(&mut self.from.connection, limits).await?;
        self.pause.stream = self.clock.lap();
        crash_point("marker arrived");
        Ok(())
    }

    /// Step 7. Sets the sequences on the other side that have changed since they were set there, by a commit that is flushed
    /// to disk. What a client was acknowledged here must be as durable there.
    pub(super) async fn set_sequences(&mut self) -> Result<()> {
        let Sessions { beside, sequences, .. } = &mut self.sessions;
        let sets = sequences::setting_changed(beside, self.ready.reading.as_deref(), sequences).await?;
        self.way_back = slot::flush(&mut self.to.connection, &sets.unwrap_or_default()).await?;
        self.pause.sequences = self.clock.lap();
        Ok(())
    }

    /// Step 8. Advances the slot of the way back to that flush. All that the stream has brought is before it and is not
    /// sent back; what is written from now on is behind it. So this comes after 7 and before the first writer. The position
    /// goes into the switch, because an advanced slot falls back if its server crashes before a checkpoint.
    pub(super) async fn advance_way_back(&mut self) -> Result<()> {
        self.way_back = slot::advance(&mut self.to.connection, &self.state.way_back(), &self.way_back).await?;
        self.pause.way_back = self.clock.lap();
        crash_point("way back advanced");
        Ok(())
    }

    /// Step 9. Opens the other side, before the commit: a service that is refused goes there at once. No switch names that
    /// side yet, so none goes there earlier.
    pub(super) async fn open_other_side(&mut self) -> Result<()> {
        self.sessions.open_other_side().await?;
        self.pause.opening = self.clock.lap();
        crash_point("other side open");
        Ok(())
    }

    /// Step 10. Commits, with the row of `splitctl.switches`. This is the switch.
    pub(super) async fn commit(&mut self) -> Result<()> {
        let Switch { generation, lives, .. } = self.state.switch;
        let way_back = Some(self.way_back.clone());
        let switch = Switch { generation: generation + 1, lives: lives.other(), way_back };
        execute(&mut self.from.connection, format!("{}; commit", switch.statement(self.owner_name)))
            .await
            .context("it is unknown whether the switch was committed: repeat the command, which finds out")?;
        self.pause.commit = self.clock.lap();
        Ok(())
    }

    /// Replaces the sessions, whose state is unknown, and waits until those have ended that hold the locks or the changed
    /// rights. Before that, a commit of theirs may still arrive.
    async fn release(&mut self) -> Result<()> {
        let Self { from, to, process, sessions, .. } = self;
        from.connection = from.connect().await?;
        end(&mut from.connection, *process).await?;
        to.connection = to.connect().await?;
        end(&mut to.connection, sessions.opener).await
    }
}

/// Ends a process of the server.
async fn end(connection: &mut PgConnection, process: i32) -> Result<()> {
    let begun = Instant::now();
    // A server does not notice that the client of a session is gone while the session waits for a lock.
    query("select pg_terminate_backend($1)").bind(process).execute(&mut *connection).await?;
    let exists = "select exists (select from pg_stat_activity where pid = $1)";
    while query_scalar(exists).bind(process).fetch_one(&mut *connection).await? {
        if begun.elapsed() > END {
            bail!(
                "process {process}: the session that held the tables does not end: repeat the command, which finds out how \
                 far it came"
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
