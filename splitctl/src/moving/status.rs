//! Where a move stands, and what comes next.

use anyhow::Result;
use serde::Serialize;

use super::side::Place;
use super::{Move, crossings, slot, stream};

/// What the journal and both databases say.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Whose move.
    pub owner: String,
    /// Whether one is open.
    pub open: bool,
    /// The side where the tables live.
    pub lives: Option<Place>,
    /// How many switches there have been.
    pub generation: i64,
    /// Whether everything has been copied.
    pub copied: bool,
    /// Whether both sides were found equal since the last switch.
    pub verified: bool,
    /// A step that was begun and has not come to its end.
    pub pending: Option<String>,
    /// Whether the stream to the other side is at work.
    pub stream_works: bool,
    /// Tables copied, of how many.
    pub tables: (i64, i64),
    /// Failures of the stream since it was made; the log of the receiving server says why.
    pub failures: i64,
    /// Bytes of WAL that the stream's slot holds back; `None` if there is no slot, or it has been lost.
    pub retained_bytes: Option<i64>,
    /// Crossings that the cutover waits for.
    pub crossings: Vec<String>,
    /// The command that comes next.
    pub next: String,
    /// The command that takes the last step back.
    pub back: Option<String>,
}

/// Looks, and changes nothing.
///
/// # Errors
/// If a database cannot be asked.
pub async fn read(moving: &mut Move) -> Result<Status> {
    let name = moving.owner.clone();
    let Some(state) = moving.state.clone() else {
        return Ok(Status {
            owner: name.clone(),
            open: false,
            lives: None,
            generation: 0,
            copied: false,
            verified: false,
            pending: None,
            stream_works: false,
            tables: (0, 0),
            failures: 0,
            retained_bytes: None,
            crossings: Vec::new(),
            next: format!("splitctl plan {name}"),
            back: None,
        });
    };
    let names = moving.names(state.number);
    let slot = names.stream(state.stream());
    let crossings = if state.lives == Place::Source { crossings::standing(moving).await? } else { Vec::new() };
    let (from, to) = moving.sides(state.lives);
    let health = stream::health(&mut to.connection, &slot).await?;
    let retained_bytes = match slot::state(&mut from.connection, &slot).await? {
        slot::Slot::Holds(bytes) => Some(bytes),
        slot::Slot::Missing | slot::Slot::Lost => None,
    };
    let next = match (&state.pending, state.lives) {
        // Repeating a command does what is left of it.
        (Some(step), _) => format!("splitctl {step} {name}"),
        (None, _) if !state.copied => format!("splitctl copy {name}"),
        (None, _) if !state.is_verified() => format!("splitctl verify {name}"),
        (None, Place::Source) if !crossings.is_empty() => format!("splitctl detach {name}"),
        (None, Place::Source) => format!("splitctl cutover {name}"),
        (None, Place::Target) => format!("splitctl complete {name}"),
    };
    let back = match (state.pending.as_deref(), state.lives) {
        (Some("complete"), _) => None,
        (_, Place::Source) => Some(format!("splitctl abort {name}")),
        (_, Place::Target) => Some(format!("splitctl rollback {name}")),
    };
    Ok(Status {
        owner: name,
        open: true,
        lives: Some(state.lives),
        generation: state.generation,
        copied: state.copied,
        verified: state.is_verified(),
        pending: state.pending,
        stream_works: health.works,
        tables: health.ready,
        failures: health.failures,
        retained_bytes,
        crossings,
        next,
        back,
    })
}
