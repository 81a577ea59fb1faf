//! The ten steps of a cutover, as ARCHITECTURE.md numbers them. Here are those before writers wait.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::epochs;
use super::pause::Pause;
use super::ready::Ready;
use super::waits::Listener;
use super::{Options, calm, reverse_stream};
use crate::database::{describe, execute};
use crate::exit::{Refused, require};
use crate::moving::fence;
use crate::moving::hanging::Known;
use crate::moving::journal::Step;
use crate::moving::pooler::guard::Guard;
use crate::moving::pooler::{self, Pooler, hook};
use crate::moving::shape::Stamp;
use crate::moving::side::Side;
use crate::moving::slot::{self, Slot};
use crate::moving::{
    Database, Move, applier, budget, crash_point, crossings, hanging, rights, sequences, shape, standbys, stream,
    subscription, unowned,
};
use crate::output::note;

/// How long `--before-switch` may take: what it has paused waits for it.
const HOOK: Duration = Duration::from_secs(30);

/// A try to switch.
pub(super) struct Attempt<'a> {
    pub(super) the_move: &'a mut Move,
    pub(super) options: &'a Options,
    pub(super) ready: Ready,
    reached: Reached,
    /// What hangs on the tables of both sides.
    known: Option<Known>,
    pub(super) poolers: &'a [Pooler],
    /// It pauses and turns the poolers, if there are any.
    pub(super) guard: Option<Guard>,
    /// What did not work with the poolers after the commit.
    pub(super) turned: Option<Vec<String>>,
    /// It hears how long requests of the services waited.
    pub(super) listener: Option<Listener>,
}

/// How far a try came, as far as giving it up depends on that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Intent,
    Hook,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(the_move: &'a mut Move, options: &'a Options, poolers: &'a [Pooler]) -> Self {
        let ready = Ready::default();
        // If this try fails, what a killed one has prepared is undone too.
        let reached = if was_killed(the_move) { Reached::Intent } else { Reached::Nothing };
        let (known, guard, turned, listener) = (None, None, None, None);
        Self { the_move, options, ready, reached, known, poolers, guard, turned, listener }
    }

    /// Makes the switch.
    pub(super) async fn run(&mut self) -> Result<Pause> {
        self.refuse_what_must_fail().await?; // 1
        self.prove_other_side().await?;
        self.write_intent().await?; // 2
        self.close_other_side().await?; // 3
        self.create_way_back().await?; // 4
        self.wait_for_calm().await?; // 5
        self.while_writers_wait(async |fenced| {
            fenced.drain_stream().await?; // 6
            fenced.set_sequences().await?; // 7
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
        reverse_stream(self.the_move).await?;
        check_stream(self.the_move).await?;
        // This may take long, and the definitions are compared after it.
        calm::refresh_views(self.the_move).await?;
        check_definitions(self.the_move).await?;
        self.known = Some(check_hanging(self.the_move).await?);
        self.check_poolers().await?;
        // After the commit it would be too late to find that the way back does not work.
        let Move { source, target, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        subscription::try_subscription(to, from).await
    }

    /// Step 2. Writes the intent, so that the next command finds this step in the journal after a crash, with the rights on
    /// both sides, which the steps after it change.
    async fn write_intent(&mut self) -> Result<()> {
        let Move { owner, source, target, journal, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        let closing = rights::read(&mut from.connection, owner).await?.grants;
        let opening = rights::read(&mut to.connection, owner).await?.grants;
        state.kept = state.kept.for_switch(owner, to.side, &closing, &opening);
        let detail = json!({ "generation": state.switch.generation + 1, "rights": state.kept, "hanging": self.known });
        journal.intend(Step::to(to.side), detail).await?;
        self.reached = Reached::Intent;
        crash_point("switch intended");
        Ok(())
    }

    /// Step 3. Closes the other side to all but the stream, whatever an earlier try left there, puts the fence on the tables
    /// of this side, and reads what the other will be opened with: grants, epochs and sequences.
    async fn close_other_side(&mut self) -> Result<()> {
        let Move { owner, owner_name, source, target, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        let locking = self.options.locking;
        rights::revoke(&mut to.connection, owner).await?;
        fence::renew(&mut to.connection, owner_name, &owner.tables, locking).await?;
        fence::prepare(&mut from.connection, owner_name, &owner.tables, locking).await?;
        let grants = rights::merged(&rights::known_to(to, state.kept.opening(owner, to.side)).await?);
        let epochs = epochs::raising(from, to, &owner.epochs).await?;
        let opening = [&epochs[..], &grants].concat();
        try_to_open(to, &opening).await.with_context(|| {
            format!("the {} cannot be opened to the roles that use the tables: see `splitctl plan {owner_name}`", to.side)
        })?;
        let sequences = sequences::list(&mut from.connection, owner).await?;
        self.ready = Ready {
            revokes: rights::merged(&rights::read(&mut from.connection, owner).await?.revokes),
            grants,
            epochs,
            reading: sequences::reading(&mut from.connection, &sequences).await?,
            stamp: Stamp::default(),
        };
        // What applies the changes after the switch is made now: a failure must not follow the commit.
        applier::prepare(from, &state.names, owner).await?;
        self.ready.stamp = Stamp::read(&mut from.connection, owner).await?;
        check_definitions(self.the_move).await?;
        crash_point("other side ready");
        Ok(())
    }

    /// Step 4. Creates the slot of the way back, on the other side. A new slot waits for every open write transaction of its
    /// cluster, so it must not be created under a lock.
    async fn create_way_back(&mut self) -> Result<()> {
        let Move { owner, source, target, state, .. } = &mut *self.the_move;
        let (_, to) = state.switch.lives.order(source, target);
        slot::create(to, &state.way_back(), owner).await?;
        crash_point("slot of the way back made");
        Ok(())
    }

    /// Step 5. Waits until the standbys have both slots and the stream is calm, because writers wait for it, listens for
    /// reports of services, runs `--before-switch`, and starts the guard of the poolers.
    async fn wait_for_calm(&mut self) -> Result<()> {
        Box::pin(budget::within(self.the_move, self.options.budget.max_wal, calm::wait)).await?;
        let Move { source, target, state, .. } = &mut *self.the_move;
        let (_, to) = state.switch.lives.order(source, target);
        self.listener = Listener::start(&to.url).await;
        let to = to.side;
        if let Some(command) = &self.options.before_switch {
            // Also if it fails, it may have paused something.
            self.reached = Reached::Hook;
            hook::run(command, to, Some(HOOK)).await?;
        }
        self.start_guard().await
    }

    /// After a failure: if the commit was not done, everything is undone that the steps before it did.
    pub(super) async fn give_up(mut self) -> Result<()> {
        let Self { the_move, options, reached, guard, .. } = &mut self;
        let before = the_move.state.switch.clone();
        if *reached == Reached::Hook
            && let Some(command) = &options.after_switch
            // What the first hook paused continues on the old side.
            && let Err(error) = hook::run(command, before.lives, None).await
        {
            note(format_args!("warning: the switch is given up, and {}", describe(&error)));
        }
        if *reached > Reached::Nothing {
            // Only the databases know whether the commit was done. Without them the guard finds out by itself.
            the_move.read_state().await.context("repeat the command, which finds out how far it came")?;
            if let Some(guard) = guard.take() {
                pooler::report(&guard.lead(the_move.state.switch.lives).await);
            }
            if the_move.state.switch.generation == before.generation {
                undo(the_move).await;
            }
        }
        Ok(())
    }
}

/// Whether a run was killed before it made its switch.
pub(super) fn was_killed(Move { state, .. }: &Move) -> bool {
    state.pending == Some(Step::to(state.switch.lives.other()))
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
    if slot::is_for_standbys(from, &name).await?
        && let Some(awaited) = standbys::awaited(from).await?
    {
        return Err(Refused(awaited).into());
    }
    let health = subscription::read_health(&mut to.connection, &name).await?;
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
        let shape = shape::read(&mut database.connection, owner).await?;
        let differences = shape::differences(&state.begun.shape, &shape);
        require!(
            differences.is_empty(),
            "the tables' definitions have changed on the {} since the copy began:\n  {}",
            database.side,
            differences.join("\n  ")
        );
    }
    Ok(())
}

/// What the other side would do otherwise, because no stream carries a change of a trigger or a policy.
async fn check_hanging(the_move: &mut Move) -> Result<Known> {
    let Move { owner, source, target, state, .. } = the_move;
    let (known, changes) = hanging::compare(owner, (source, target), state.known.as_ref(), state.switch.lives).await?;
    let changes: Vec<String> = changes.into_iter().filter(|change| !change.is_harmless).map(|change| change.text).collect();
    let lives = state.switch.lives;
    require!(
        changes.is_empty(),
        "these have changed on the {lives} since the last step, and the {} does not have the change. Make it there, or name \
         the object in `leave`:\n  {}",
        lives.other(),
        changes.join("\n  ")
    );
    Ok(known)
}

/// Runs the statements that open the other side, and rolls them back: what fails must fail before writers wait.
async fn try_to_open(to: &mut Database, statements: &[String]) -> Result<(), sqlx::Error> {
    let tried = execute(&mut to.connection, format!("begin; {}", statements.join("; "))).await;
    execute(&mut to.connection, "rollback").await?;
    tried
}

/// Closes the other side again, drops the slot of the way back, and records that the switch was given up. An error stops
/// nothing here: the next try closes the other side again.
pub(super) async fn undo(the_move: &mut Move) {
    let Move { owner, owner_name, source, target, journal, state, .. } = the_move;
    let (from, to) = state.switch.lives.order(source, target);
    let _ = execute(&mut to.connection, fence::close(owner_name)).await;
    let _ = rights::revoke(&mut to.connection, owner).await;
    let _ = applier::withdraw(from, &state.names, owner).await;
    let given_up = json!({ "generation": state.switch.generation + 1, "given up": Step::to(to.side) });
    let _ = stream::end(to, from, &state.way_back()).await;
    let _ = journal.record(Step::GiveUp, given_up).await;
}
