//! The switch from the side where the tables live to the other one: cutover and rollback are the same, the other way round.
//!
//! What happens while writers wait, in this order: the tables are locked; the marker goes through the stream; sequences and
//! epochs are raised on the other side; the way back is set to begin here; the other side is opened; and then **one** commit on
//! the side that is left takes the rights there and writes down where the tables live. That commit is the switch. Before it,
//! nothing has changed for anybody, and a crash has the server let go of everything; after it, writers that waited are refused
//! and have written nothing, and so are readers. Whoever is refused reads `splitctl.switches` in the database that refused.

mod fenced;
mod pause;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::process::Command;

use super::fence;
use super::fence::Locking;
use super::journal::{self, GIVE_UP, State, Switch, append};
use super::side::Place;
use super::{Move, crash_point, crossings, rights, slot, stream};
use crate::database::execute;
use crate::exit::require;
use pause::Pause;

/// How a switch is done.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Locks.
    #[command(flatten)]
    pub locking: Locking,
    /// How long writers may be held up once the tables are locked, in milliseconds; then it is taken back
    #[arg(long, default_value_t = 1000)]
    pub max_pause: u64,
    /// A command to run before writers are held up: pause a pooler, for one. If it fails, nothing is done
    #[arg(long)]
    pub before_switch: Option<String>,
    /// A command to run once the tables live on the other side: turn a pooler to it, for one
    #[arg(long)]
    pub after_switch: Option<String>,
}

/// What it took.
#[derive(Debug, Clone, Serialize)]
pub struct Switched {
    /// Whose tables.
    pub owner: String,
    /// Where they live now.
    pub lives: Place,
    /// The number of the switch.
    pub generation: i64,
    /// How long writers were held up, in milliseconds: from the first request for the lock that was got to the commit. `None`
    /// if an earlier run of the command had switched, and this one only did what was left.
    pub pause: Option<Pause>,
}

/// Switches to `to`, or does what an earlier run left of that.
///
/// # Errors
/// [`Refused`] with what stands against it. Nothing has changed then for those who use the tables.
pub async fn run(moving: &mut Move, to: Place, options: &Options) -> Result<Switched> {
    let state = moving.state()?.clone();
    let step = step(to);
    if state.lives == to {
        require!(state.generation > 0, "the tables have not left the {to}: there is nothing to roll back");
        // The commit was done; is the rest?
        finish(moving, &state, options).await?;
        return Ok(Switched { owner: moving.owner.clone(), lives: to, generation: state.generation, pause: None });
    }
    state.check_goes_on(&moving.owner)?;
    require!(state.copied, "the copy has not come to its end: `splitctl copy {}`", moving.owner);
    if to == Place::Target {
        require!(
            state.is_verified(),
            "the rows have not been compared since the last step: `splitctl verify {}`",
            moving.owner
        );
        let standing = crossings::standing(moving).await?;
        require!(standing.is_empty(), "crossings still stand:\n  {}", standing.join("\n  "));
    }
    // What a run that was killed has left of the switch before.
    settle_streams(moving, &state, options.locking).await?;
    let source = &mut moving.source.connection;
    append(source, state.number, &moving.owner, step, "intent", &json!({ "generation": state.generation + 1 })).await?;
    crash_point("switch intended");
    let pause = match fenced::attempt(moving, &state, options).await {
        Ok(pause) => pause,
        Err(error) => {
            // Whether the commit came through is for the databases to say.
            moving.read_state().await.context("run the command again, which finds out how far it came")?;
            if moving.state()?.generation == state.generation {
                take_back(moving, &state).await;
            }
            return Err(error);
        }
    };
    crash_point("switched");
    moving.read_state().await?;
    let state = moving.state()?.clone();
    finish(moving, &state, options).await?;
    Ok(Switched { owner: moving.owner.clone(), lives: to, generation: state.generation, pause: Some(pause) })
}

/// The command that switches to a side.
fn step(to: Place) -> &'static str {
    match to {
        Place::Target => "cutover",
        Place::Source => "rollback",
    }
}

/// Runs an operator's command, with the side to turn to in `SPLITCTL_SIDE`.
async fn hook(command: Option<&str>, to: Place) -> Result<()> {
    let Some(command) = command else { return Ok(()) };
    let status = Command::new("/bin/sh").args(["-c", command]).env("SPLITCTL_SIDE", to.name()).status().await;
    let status = status.with_context(|| format!("`{command}` cannot be run"))?;
    require!(status.success(), "`{command}` failed ({status})");
    Ok(())
}

/// After a try that failed: the other side is closed again, the way back is given up, and the fence that was off is on again.
async fn take_back(moving: &mut Move, state: &State) {
    let owner = moving.moving().clone();
    let names = moving.names(state.number);
    let step = step(state.lives.other());
    let (number, name) = (state.number, moving.owner.clone());
    let (from, to) = moving.sides(state.lives);
    let _ = rights::take(&mut to.connection, &owner).await;
    if state.generation > 0
        && let Ok(close) = fence::for_each(&mut to.connection, &owner.tables, fence::CLOSE).await
    {
        let _ = fence::run_each(&mut to.connection, &owner.tables, &close, Locking { lock_timeout: 200, lock_attempts: 5 })
            .await;
    }
    let _ = stream::end(to, from, &names, state.stream() + 1).await;
    let given_up = json!({ "generation": state.generation + 1, "given up": step });
    let _ = append(&mut moving.source.connection, number, &name, GIVE_UP, "record", &given_up).await;
}

/// What comes after the commit.
async fn finish(moving: &mut Move, state: &State, options: &Options) -> Result<()> {
    let step = step(state.lives);
    let pending = state.pending.as_deref() == Some(step);
    if pending {
        hook(options.after_switch.as_deref(), state.lives).await?;
    }
    settle_streams(moving, state, options.locking).await?;
    if pending {
        let detail = json!({ "generation": state.generation });
        append(&mut moving.source.connection, state.number, &moving.owner, step, "record", &detail).await?;
    }
    if state.lives == Place::Source && !state.detached.is_empty() {
        // They hold from here on as before the move. The fence saw the marker arrive, so no row of the other side is missing.
        crossings::attach(moving, options.locking).await?;
    }
    moving.read_state().await
}

/// After a switch the stream of before ends, and the one back begins. Never both at once: what goes one way would come back by
/// the other.
async fn settle_streams(moving: &mut Move, state: &State, locking: Locking) -> Result<()> {
    let Some(way_back) = &state.way_back else { return Ok(()) };
    let (owner, name) = (moving.moving().clone(), moving.owner.clone());
    let names = moving.names(state.number);
    let (lives, other) = moving.sides(state.lives);
    // Both know of the switch from here on: a server that is restored from before it does not take it back.
    let switch = Switch { generation: state.generation, lives: state.lives, way_back: Some(way_back.clone()) };
    execute(&mut lives.connection, journal::switching(&name, &switch)).await?;
    let closed = rights::take(&mut other.connection, &owner).await?;
    if !closed.revokes.is_empty() {
        let close = fence::for_each(&mut other.connection, &owner.tables, fence::CLOSE).await?;
        fence::run_each(&mut other.connection, &owner.tables, &close, locking).await?;
    }
    stream::end(other, lives, &names, state.generation).await?;
    crash_point("stream of before ended");
    let slot = names.stream(state.stream());
    if slot::state(&mut lives.connection, &slot).await? == slot::Slot::Missing {
        bail!(
            "the slot {slot} is gone, and with it the way back: the tables are safe in the {}; `splitctl complete {name} --give-up-way-back`",
            lives.place
        );
    }
    stream::subscribe(lives, other, &names, state.stream(), stream::Begin::Behind(way_back)).await?;
    crash_point("way back begun");
    Ok(())
}
