//! The ten steps of a cutover, as ARCHITECTURE.md numbers them. Here are those before writers wait.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use sqlx::{PgConnection, query_scalar};

use super::epochs;
use super::pause::Pause;
use super::{Options, reverse_stream, run_hook};
use crate::database::execute;
use crate::exit::require;
use crate::moving::fence::{self, Locking};
use crate::moving::journal::Step;
use crate::moving::side::Side;
use crate::moving::slot::{self, Slot};
use crate::moving::{Database, Move, crash_point, crossings, marker, relations, rights, sequences, stream, unowned};

/// How long the stream may take for a marker before the switch.
const LAG: Duration = Duration::from_secs(30);
/// A stream that takes longer for a marker is too slow for a fence.
const CALM: Duration = Duration::from_millis(500);
/// The time between two switches.
const REST: Duration = Duration::from_secs(3);

/// A try to switch.
pub(super) struct Attempt<'a> {
    pub(super) the_move: &'a mut Move,
    pub(super) options: &'a Options,
    pub(super) ready: Ready,
    reached: Reached,
}

/// What step 3 prepares as statements, because each round trip of the later steps is one that writers wait for.
#[derive(Default)]
pub(super) struct Ready {
    /// They revoke the rights on the side that the tables leave.
    pub revokes: Vec<String>,
    /// They create the fence's triggers there.
    pub close: Vec<String>,
    /// They drop those triggers on the other side.
    pub reopen: Vec<String>,
    /// They grant the rights there.
    pub grants: Vec<String>,
    /// They raise the epochs there.
    pub epochs: Vec<String>,
    /// It reads the sequences, if there are any.
    pub reading: Option<String>,
}

/// How far a try came, as far as giving it up depends on that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Intent,
    Hook,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(the_move: &'a mut Move, options: &'a Options) -> Self {
        Self { the_move, options, ready: Ready::default(), reached: Reached::Nothing }
    }

    /// Makes the switch.
    pub(super) async fn run(&mut self) -> Result<Pause> {
        self.refuse_what_must_fail().await?; // 1
        self.write_intent().await?; // 2
        self.close_other_side().await?; // 3
        self.create_way_back().await?; // 4
        self.wait_for_calm().await?; // 5
        self.while_writers_wait(async |fenced| {
            fenced.drain_stream().await?; // 6
            fenced.set_sequences_and_epochs().await?; // 7
            fenced.advance_way_back().await?; // 8
            fenced.open_other_side().await?; // 9
            fenced.commit().await // 10
        })
        .await
    }

    /// Step 1. Refuses everything that is known to fail, before anybody waits. The rows must have been compared since the
    /// last switch, no crossing may stand, the stream must run, and the definitions must be those of the copy.
    async fn refuse_what_must_fail(&mut self) -> Result<()> {
        check_ready(self.the_move).await?;
        // A killed run may not have reversed the stream of its switch.
        reverse_stream(self.the_move, self.options.locking).await?;
        check_stream(self.the_move).await?;
        check_definitions(self.the_move).await?;
        // After the commit it would be too late to find that the way back does not work.
        let Move { source, target, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        stream::try_subscription(to, from).await
    }

    /// Step 2. Writes the intent, so that the next command finds this step in the journal after a crash, with the rights on
    /// both sides, which the steps after it change.
    async fn write_intent(&mut self) -> Result<()> {
        let Move { owner, source, target, journal, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        let closing = rights::read(&mut from.connection, owner).await?.grants;
        let opening = rights::read(&mut to.connection, owner).await?.grants;
        state.kept = state.kept.for_switch(to.side, &closing, &opening);
        let detail = json!({ "generation": state.switch.generation + 1, "rights": state.kept });
        journal.intend(Step::to(to.side), detail).await?;
        self.reached = Reached::Intent;
        crash_point("switch intended");
        Ok(())
    }

    /// Step 3. Closes the other side to all but the stream, whatever an earlier try left there, and reads what it will be
    /// opened with: grants, epochs and sequences.
    async fn close_other_side(&mut self) -> Result<()> {
        let Move { owner, owner_name, source, target, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        rights::revoke(&mut to.connection, owner).await?;
        let grants = rights::known_to(to.version, state.kept.opening(to.side));
        let epochs = epochs::raising(from, to, &owner.epochs).await?;
        let opening = [&epochs[..], &grants].concat();
        try_to_open(to, &opening).await.with_context(|| {
            format!("the {} cannot be opened to the roles that use the tables: see `splitctl plan {owner_name}`", to.side)
        })?;
        let sequences = sequences::list(&mut from.connection, &owner.tables).await?;
        self.ready = Ready {
            revokes: rights::read(&mut from.connection, owner).await?.revokes,
            close: fence::statements(&mut from.connection, &owner.tables, fence::CLOSE).await?,
            reopen: fence::statements(&mut to.connection, &owner.tables, fence::REOPEN).await?,
            grants,
            epochs,
            reading: sequences::reading(&sequences),
        };
        crash_point("other side ready");
        Ok(())
    }

    /// Step 4. Creates the slot of the way back, on the other side. A new slot waits for every open write transaction of its
    /// cluster, so it must not be created under a lock.
    async fn create_way_back(&mut self) -> Result<()> {
        let Move { source, target, state, .. } = &mut *self.the_move;
        let (_, to) = state.switch.lives.order(source, target);
        slot::create(&mut to.connection, &state.way_back()).await?;
        crash_point("slot of the way back made");
        Ok(())
    }

    /// Step 5. Waits until the stream is calm, because writers wait for it, and runs `--before-switch`.
    async fn wait_for_calm(&mut self) -> Result<()> {
        let Move { owner_name, source, target, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        rest(&mut from.connection, owner_name).await?;
        calm(&mut from.connection, &mut to.connection, owner_name).await?;
        run_hook(self.options.before_switch.as_deref(), to.side).await?;
        self.reached = Reached::Hook;
        Ok(())
    }

    /// After a failure: if the commit was not done, everything is undone that the steps before it did.
    pub(super) async fn give_up(mut self) -> Result<()> {
        let Self { the_move, options, reached, .. } = &mut self;
        let before = the_move.state.switch.clone();
        if *reached == Reached::Hook && options.before_switch.is_some() {
            // What the first hook paused continues on the old side.
            let _ = run_hook(options.after_switch.as_deref(), before.lives).await;
        }
        if *reached > Reached::Nothing {
            // Only the databases know whether the commit was done.
            the_move.read_state().await.context("repeat the command, which finds out how far it came")?;
            if the_move.state.switch.generation == before.generation {
                undo(the_move).await;
            }
        }
        Ok(())
    }
}

async fn check_ready(the_move: &mut Move) -> Result<()> {
    let Move { owner_name, state, .. } = &*the_move;
    state.check_not_ending(owner_name)?;
    require!(state.copied, "{owner_name}: the copy is not done: `splitctl copy {owner_name}`");
    if state.switch.lives == Side::Source {
        require!(
            state.is_verified(),
            "{owner_name}: the rows have not been compared since the last step: `splitctl verify {owner_name}`"
        );
        unowned::check(the_move).await?;
        let standing = crossings::list(the_move).await?;
        require!(standing.is_empty(), "crossings still stand:\n  {}", standing.join("\n  "));
    }
    Ok(())
}

async fn check_stream(Move { owner_name, source, target, state, .. }: &mut Move) -> Result<()> {
    let (from, to) = state.switch.lives.order(source, target);
    let name = state.stream();
    let way_out = match from.side {
        Side::Source => format!("`splitctl abort {owner_name}`, and copy again"),
        Side::Target => format!("`splitctl complete {owner_name} --give-up-way-back`"),
    };
    require!(
        matches!(slot::find(&mut from.connection, &name).await?, Slot::Holds(_)),
        "{name}: the slot of the stream on the {} is gone, so changes may be missing: {way_out}",
        from.side
    );
    let health = stream::read_health(&mut to.connection, &name).await?;
    require!(health.exists, "{name}: there is no stream from the {} to the {}: repeat the last command", from.side, to.side);
    require!(
        health.ready == health.tables,
        "{owner_name}: {} of {} tables have not been copied: `splitctl copy {owner_name}`",
        health.tables - health.ready,
        health.tables
    );
    Ok(())
}

async fn check_definitions(Move { owner, source, target, state, .. }: &mut Move) -> Result<()> {
    for database in [source, target] {
        let shape = relations::shape(&mut database.connection, &owner.tables).await?;
        let differences = relations::differences(&state.begun.shape, &shape);
        require!(
            differences.is_empty(),
            "the tables' definitions have changed on the {} since the copy began:\n  {}",
            database.side,
            differences.join("\n  ")
        );
    }
    Ok(())
}

/// Runs the statements of the steps 7 and 9 and rolls them back: what fails must fail before writers wait.
async fn try_to_open(to: &mut Database, statements: &[String]) -> Result<(), sqlx::Error> {
    let tried = execute(&mut to.connection, format!("begin; {}", statements.join("; "))).await;
    execute(&mut to.connection, "rollback").await?;
    tried
}

/// A service may have missed the last switch. It trusts what it knows for a second; if the side that it knows were opened
/// again within that second, it would write there too early.
async fn rest(from: &mut PgConnection, owner_name: &str) -> Result<()> {
    let since: Option<f64> = query_scalar(SINCE_LAST_SWITCH).bind(owner_name).fetch_one(from).await?;
    if let Some(left) = since.map(|since| REST.as_secs_f64() - since).filter(|left| *left > 0.0) {
        tokio::time::sleep(Duration::from_secs_f64(left).min(REST)).await;
    }
    Ok(())
}

async fn calm(from: &mut PgConnection, to: &mut PgConnection, owner_name: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let sent = Instant::now();
        let token = marker::set(from, owner_name).await?;
        require!(
            marker::wait(to, owner_name, token, LAG).await?,
            "{owner_name}: the stream is more than {LAG:?} behind: wait, and see `splitctl status {owner_name}`"
        );
        if sent.elapsed() < CALM {
            return Ok(());
        }
        require!(
            begun.elapsed() < LAG * 2,
            "{owner_name}: the stream is {:?} behind again and again: try at a quieter time",
            sent.elapsed()
        );
    }
}

/// Closes the other side again, drops the slot of the way back, and records that the switch was given up. An error stops
/// nothing here: the next try closes the other side again.
async fn undo(the_move: &mut Move) {
    let Move { owner, source, target, journal, state, .. } = the_move;
    let locking = Locking { lock_timeout: Duration::from_millis(200), lock_attempts: 5 };
    let (from, to) = state.switch.lives.order(source, target);
    let _ = rights::revoke(&mut to.connection, owner).await;
    if state.switch.generation > 0 {
        let _ = fence::run_for_each(&mut to.connection, &owner.tables, fence::CLOSE, locking).await;
    }
    let given_up = json!({ "generation": state.switch.generation + 1, "given up": Step::to(to.side) });
    let _ = stream::end(to, from, &state.way_back()).await;
    let _ = journal.record(Step::GiveUp, given_up).await;
}

const SINCE_LAST_SWITCH: &str = r"
    select extract(epoch from clock_timestamp() - max(at))::float8
    from splitctl.switches
    where owner = $1";
