//! The steps of a cutover while writers wait.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{PgConnection, query, query_scalar};

use super::Options;
use super::pause::{Clock, Pause};
use super::steps::{Attempt, Ready};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::moving::journal::State;
use crate::moving::switches::Switch;
use crate::moving::{Database, Move, crash_point, fence, marker, relations, sequences, slot};
use crate::names::Qualified;

/// How long a session may take to end.
const END: Duration = Duration::from_secs(30);

/// Begins a transaction whose commit flushes the WAL, including what the stream brought before: the stream's own commits do
/// not wait for a flush.
const FLUSHED: &str =
    "begin; set local synchronous_commit = local; select pg_logical_emit_message(true, 'splitctl', 'switch')";

/// A try that holds the locks.
pub(super) struct Fenced<'a> {
    from: &'a mut Database,
    to: &'a mut Database,
    tables: &'a [Qualified],
    owner_name: &'a str,
    state: &'a State,
    ready: &'a Ready,
    max_pause: Duration,
    /// The process of the server that holds the locks.
    process: i32,
    /// A second session on the side that the tables leave.
    beside: PgConnection,
    clock: Clock,
    pause: Pause,
    way_back: String,
}

impl Attempt<'_> {
    /// Locks the tables and runs the steps, for `--max-pause` at most. Readers go on meanwhile. If a step fails, the locks
    /// are released before this returns.
    pub(super) async fn while_writers_wait(
        &mut self,
        steps: impl AsyncFnOnce(&mut Fenced<'_>) -> Result<()>,
    ) -> Result<Pause> {
        let limit = self.options.max_pause;
        let mut fenced = self.lock().await?;
        let done = tokio::time::timeout(limit.max(Duration::from_millis(1)) * 2, steps(&mut fenced)).await;
        let too_long = |_| Err(Refused(format!("writers waited longer than twice {limit:?} (--max-pause)")).into());
        match done.unwrap_or_else(too_long) {
            Ok(()) => Ok(Pause { total: fenced.clock.total(), ..fenced.pause }),
            Err(error) => {
                fenced.release().await?;
                Err(error)
            }
        }
    }

    async fn lock(&mut self) -> Result<Fenced<'_>> {
        let Self { the_move, options, ready, .. } = self;
        let Move { owner, owner_name, source, target, state, .. } = &mut **the_move;
        let (from, to) = state.switch.lives.order(source, target);
        fence::run_each(&mut to.connection, &owner.tables, &ready.reopen, options.locking).await?;
        let beside = from.connect().await?;
        let process = query_scalar("select pg_backend_pid()").fetch_one(&mut from.connection).await?;
        let (statement, way_back) = (lock_statement(&owner.tables, options), state.way_back());
        let asked = Cell::new(Instant::now());
        fence::patiently(&mut from.connection, &owner.tables, options.locking, async |connection: &mut PgConnection| {
            // Less WAL is left to read under the lock.
            slot::advance(&mut to.connection, &way_back).await?;
            asked.set(Instant::now());
            execute(connection, statement.clone()).await
        })
        .await?;
        let mut clock = Clock::new(asked.get());
        let pause = Pause { lock: clock.lap(), ..Pause::default() };
        crash_point("locked");
        let (tables, max_pause) = (&owner.tables, options.max_pause);
        Ok(Fenced { from, to, tables, owner_name, state, ready, max_pause, process, beside, clock, pause, way_back })
    }
}

impl Fenced<'_> {
    /// Step 6. Sends the marker through the stream. No writer is left, so when it arrives, everything has. Meanwhile the
    /// locking transaction creates the fence and revokes the rights, which no other session sees yet, and the definitions
    /// are compared again.
    pub(super) async fn drain_stream(&mut self) -> Result<()> {
        let (limit, milliseconds) = (self.max_pause, self.max_pause.as_millis().max(1));
        let token = marker::set(&mut self.beside, self.owner_name).await?;
        let closing = format!(
            "set local statement_timeout = {milliseconds}; set local lock_timeout = {milliseconds}; {}; {}",
            self.ready.close.join("; "),
            self.ready.revokes.join("; "),
        );
        let (arrived, closed, shape) = tokio::join!(
            marker::wait(&mut self.to.connection, self.owner_name, token, limit),
            execute(&mut self.from.connection, closing),
            relations::shape(&mut self.beside, self.tables),
        );
        closed?;
        require!(arrived?, "the stream took longer than {limit:?} (--max-pause) while writers waited: nothing was changed");
        require!(shape? == self.state.begun.shape, "the tables' definitions have just changed: nothing was switched");
        self.pause.stream = self.clock.lap();
        crash_point("marker arrived");
        Ok(())
    }

    /// Step 7. Sets sequences and epochs on the other side, by a commit that is flushed to disk. What a client was
    /// acknowledged here must be as durable there.
    pub(super) async fn set_sequences_and_epochs(&mut self) -> Result<()> {
        let sets = sequences::setting(&mut self.beside, self.ready.reading.as_deref()).await?.unwrap_or_default();
        let raises = self.ready.epochs.join("; ");
        execute(&mut self.to.connection, format!("{FLUSHED}; {raises}; {sets}; commit")).await?;
        self.pause.sequences = self.clock.lap();
        Ok(())
    }

    /// Step 8. Advances the slot of the way back to that flush. All that the stream has brought is before it and is not
    /// sent back; what is written from now on is behind it. So this comes after 7 and before the first writer. The position
    /// goes into the switch, because an advanced slot falls back if its server crashes before a checkpoint.
    pub(super) async fn advance_way_back(&mut self) -> Result<()> {
        self.way_back = slot::advance(&mut self.to.connection, &self.state.way_back()).await?;
        self.pause.way_back = self.clock.lap();
        crash_point("way back advanced");
        Ok(())
    }

    /// Step 9. Opens the other side, before the commit: a service that is refused goes there at once. No switch names that
    /// side yet, so none goes there earlier.
    pub(super) async fn open_other_side(&mut self) -> Result<()> {
        let grants = self.ready.grants.join("; ");
        execute(&mut self.to.connection, format!("begin; {grants}; commit")).await?;
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

    /// Replaces the sessions, whose state is unknown, and waits until the one that held the locks has ended. Before that,
    /// its commit may still arrive.
    async fn release(&mut self) -> Result<()> {
        self.from.connection = self.from.connect().await?;
        self.to.connection = self.to.connect().await?;
        let begun = Instant::now();
        let connection = &mut self.from.connection;
        // A server does not notice that the client of a session is gone while the session waits for a lock.
        query("select pg_terminate_backend($1)").bind(self.process).execute(&mut *connection).await?;
        let exists = "select exists (select from pg_stat_activity where pid = $1)";
        while query_scalar(exists).bind(self.process).fetch_one(&mut *connection).await? {
            if begun.elapsed() > END {
                bail!(
                    "process {}: the session that held the tables does not end: repeat the command, which finds out how far \
                     it came",
                    self.process
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Begins a transaction that locks the tables. If splitctl sends nothing for too long, the server ends it.
fn lock_statement(tables: &[Qualified], options: &Options) -> String {
    format!(
        "begin;
         set local idle_in_transaction_session_timeout = {};
         set local statement_timeout = {};
         lock table {} in share row exclusive mode",
        (options.max_pause * 2).as_millis().max(1),
        // `lock_timeout` is one for each table; this is one for all of them.
        options.locking.lock_timeout.as_millis(),
        relations::list(tables)
    )
}
