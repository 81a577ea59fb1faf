//! The switch from the side where the tables live to the other side. A rollback is a cutover with the sides exchanged.
//!
//! One commit on the side that the tables leave is the switch: it revokes the rights there and writes where the tables
//! live. Before it, services notice nothing, and after a crash the server releases everything. After it, the old side
//! refuses all readers and the writers that waited, which have changed nothing. They read `splitctl.switches` in the
//! database that refused them.

mod calm;
mod epochs;
mod fenced;
mod lock;
mod pause;
mod poolers;
mod proven;
mod ready;
mod steps;
mod waits;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::budget::Budget;
use super::fence::{self, Locking};
use super::journal::Step;
use super::pooler::Pooler;
use super::side::Side;
use super::slot::Slot;
use super::{Move, applier, crash_point, crossings, rights, slot, stream};
use crate::database::{describe, execute};
use crate::exit::require;
pub use pause::Pause;
use poolers::Turning;
use steps::Attempt;
pub use waits::Waits;

/// Flags of `cutover` and `rollback`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How long locks are tried.
    #[command(flatten)]
    pub locking: Locking,
    /// How long writers may wait, the lock and the pause of a pooler included. After that the switch is given up
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub max_pause: Duration,
    /// A pooler to turn, as `pgbouncer://admin@host:6432/database?file=…` or `$NAME`: its clients wait while the switch is
    /// made, and go on at the other side. Can be repeated
    #[arg(long = "pooler", value_name = "URL")]
    pub poolers: Vec<String>,
    /// A command to run before writers wait, for example to pause another pooler. If it fails, the switch is not made
    #[arg(long)]
    pub before_switch: Option<String>,
    /// A command to run after the switch, for example to point a pooler to the other side. Also after one that is given up
    /// behind --before-switch, with the old side
    #[arg(long)]
    pub after_switch: Option<String>,
    /// How much WAL the stream's slot may hold back while the switch waits.
    #[command(flatten)]
    pub budget: Budget,
}

/// The result of a switch.
#[derive(Debug, Clone, Serialize)]
pub struct Switched {
    /// The owner.
    pub owner: String,
    /// The side where the tables live now.
    pub lives: Side,
    /// The number of the switch.
    pub generation: i64,
    /// How long writers waited. `None` if an earlier run of the command switched, and this run did the rest.
    pub pause: Option<Pause>,
    /// How long requests of the services waited. `None` if no service has reported it.
    pub waits: Option<Waits>,
    /// Whether the other side follows, so that the next switch can be made.
    pub followed: bool,
    /// Why a later step failed. The switch is made all the same, and the same command does the rest.
    pub unfinished: Option<String>,
}

/// Switches to a side, or does the rest of what an earlier run began.
///
/// # Errors
/// [`crate::exit::Refused`] with the reason. Services notice nothing then.
pub async fn run(the_move: &mut Move, to: Side, options: &Options) -> Result<Switched> {
    the_move.check_open()?;
    let poolers = options.poolers.iter().map(|text| Pooler::parse(text, the_move));
    let poolers = poolers.collect::<Result<Vec<Pooler>>>()?;
    let (mut pause, mut turned, mut listener) = (None, None, None);
    if the_move.state.switch.lives == to {
        require!(
            the_move.state.switch.generation > 0,
            "{}: the tables have not left the {to}: there is nothing to roll back",
            the_move.owner_name
        );
    } else {
        let mut attempt = Attempt::new(&mut *the_move, options, &poolers);
        match attempt.run().await {
            Ok(done) => {
                (pause, turned) = (Some(done), attempt.turned);
                listener = attempt.listener.map(|listener| (listener, Instant::now()));
            }
            Err(error) => {
                attempt.give_up().await?;
                return Err(error);
            }
        }
        crash_point("switched");
    }
    let generation = the_move.state.switch.generation + i64::from(pause.is_some());
    let owner = the_move.owner_name.clone();
    let turning = Turning { poolers: &poolers, turned };
    let (followed, unfinished) = match finish(the_move, options, turning).await {
        Ok(followed) => (followed, None),
        Err(error) if pause.is_some() => (false, Some(describe(&error))),
        Err(error) => return Err(error),
    };
    let waits = match listener {
        Some((listener, committed)) => listener.collect(&owner, generation, committed).await,
        None => None,
    };
    Ok(Switched { owner, lives: to, generation, pause, waits, followed, unfinished })
}

/// Undoes what a killed run has prepared for a switch that it did not make.
pub async fn undo_killed(the_move: &mut Move) -> Result<()> {
    if steps::was_killed(the_move) {
        steps::undo(the_move).await;
        the_move.read_state().await?;
    }
    Ok(())
}

/// Does what comes after the commit. No writer waits for it. Returns whether the other side follows.
async fn finish(the_move: &mut Move, options: &Options, turning: Turning<'_>) -> Result<bool> {
    the_move.read_state().await?;
    let lives = the_move.state.switch.lives;
    let step = Step::to(lives);
    let pending = the_move.state.pending == Some(step);
    turning.lead(options, lives, pending).await?;
    let followed = reverse_stream(the_move).await?;
    if pending {
        the_move.journal.record(step, json!({ "generation": the_move.state.switch.generation })).await?;
    }
    if lives == Side::Source {
        // The marker arrived before the switch, so the source has every row that a key refers to.
        crossings::attach(the_move, options.locking).await?;
    }
    the_move.read_state().await?;
    Ok(followed)
}

/// Ends the stream that led to the last switch, and begins the one back. Both never run at once: what one brings would
/// return by the other. Returns false if the slot of the stream back is gone: no command can bring it back.
async fn reverse_stream(the_move: &mut Move) -> Result<bool> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    let Some(way_back) = &state.switch.way_back else { return Ok(true) };
    let (lives, other) = state.switch.lives.order(source, target);
    // Both databases know the switch from here on, so a restore of the old side to an earlier time does not undo it.
    execute(&mut lives.connection, state.switch.statement(owner_name)).await?;
    rights::revoke(&mut other.connection, owner).await?;
    execute(&mut other.connection, fence::close(owner_name)).await?;
    stream::end(other, lives, &state.names.stream(state.switch.generation)).await?;
    applier::withdraw(lives, &state.names, owner).await?;
    crash_point("stream of before ended");
    let name = state.stream();
    if !matches!(slot::find(&mut lives.connection, &name).await?, Slot::Holds(_)) {
        return Ok(false);
    }
    stream::subscribe(lives, other, &name, &state.names, owner, stream::Begin::Behind(way_back)).await?;
    crash_point("way back begun");
    Ok(true)
}
