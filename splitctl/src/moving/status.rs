//! The status of a move, and the next command.

use anyhow::Result;
use serde::Serialize;

use super::journal::{State, Step};
use super::side::Side;
use super::slot::Slot;
use super::{Move, crossings, rights, slot, stream};

/// What the journal and both databases say.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    /// The owner.
    pub owner: String,
    /// Whether a move is open.
    pub open: bool,
    /// The side where the tables live.
    pub lives: Option<Side>,
    /// The number of switches so far.
    pub generation: i64,
    /// Whether all rows have been copied.
    pub copied: bool,
    /// Whether both sides were found equal since the last switch.
    pub verified: bool,
    /// A step that was begun and is not done.
    pub pending: Option<Step>,
    /// Whether the stream to the other side runs.
    pub stream_works: bool,
    /// The number of tables that are copied, and of all tables.
    pub tables: (i64, i64),
    /// How often the stream has failed since it was created. The log of the receiving server says why.
    pub failures: i64,
    /// The bytes of WAL that the stream's slot holds back; `None` if the slot is missing or lost.
    pub retained_bytes: Option<i64>,
    /// The crossings that block the cutover.
    pub crossings: Vec<String>,
    /// The roles that have rights on the old tables again. An owner can grant them to itself.
    pub reopened: Vec<String>,
    /// The next command.
    pub next: String,
    /// The command that undoes the last step.
    pub back: Option<String>,
}

/// Reads the status, and changes nothing.
///
/// # Errors
/// If a database cannot be asked.
pub async fn read(the_move: &mut Move) -> Result<Status> {
    let owner = the_move.owner_name.clone();
    if !the_move.state.is_open() {
        let next = format!("splitctl plan {owner}");
        return Ok(Status { owner, next, ..Status::default() });
    }
    let lives = the_move.state.switch.lives;
    let crossings = if lives == Side::Source { crossings::list(the_move).await? } else { Vec::new() };
    let Move { owner: entry, source, target, state, .. } = the_move;
    let reopened = match lives {
        Side::Target => rights::read(&mut source.connection, entry).await?.roles,
        Side::Source => Vec::new(),
    };
    let (from, to) = lives.order(source, target);
    let health = stream::read_health(&mut to.connection, &state.stream()).await?;
    let retained_bytes = match slot::find(&mut from.connection, &state.stream()).await? {
        Slot::Holds(bytes) => Some(bytes),
        Slot::Missing | Slot::Lost => None,
    };
    Ok(Status {
        open: true,
        lives: Some(lives),
        generation: state.switch.generation,
        copied: state.copied,
        verified: state.is_verified(),
        pending: state.pending,
        stream_works: health.works,
        tables: (health.ready, health.tables),
        failures: health.failures,
        retained_bytes,
        next: way_out(state, retained_bytes, &owner)
            .unwrap_or_else(|| format!("splitctl {} {owner}", next(state, &crossings))),
        back: back(state, retained_bytes).map(|command| format!("splitctl {command} {owner}")),
        crossings,
        reopened,
        owner,
    })
}

/// The command that ends a move whose stream is lost. A step that was begun does the rest of its work first.
fn way_out(state: &State, retained_bytes: Option<i64>, owner: &str) -> Option<String> {
    let is_lost = retained_bytes.is_none() && state.copied && state.pending.is_none();
    is_lost.then(|| match state.switch.lives {
        Side::Source => format!("splitctl abort {owner}"),
        Side::Target => format!("splitctl complete {owner} --give-up-way-back"),
    })
}

fn next(state: &State, crossings: &[String]) -> Step {
    match (state.pending, state.switch.lives) {
        // A step that is repeated does the rest of its work.
        (Some(step), _) => step,
        (None, _) if !state.copied => Step::Copy,
        (None, _) if !state.is_verified() => Step::Verify,
        (None, Side::Source) if !crossings.is_empty() => Step::Detach,
        (None, Side::Source) => Step::Cutover,
        (None, Side::Target) => Step::Complete,
    }
}

fn back(state: &State, retained_bytes: Option<i64>) -> Option<Step> {
    match (state.pending, state.switch.lives) {
        (Some(Step::Complete), _) => None,
        (_, Side::Source) => Some(Step::Abort),
        (_, Side::Target) => retained_bytes.map(|_| Step::Rollback),
    }
}
