//! The status of a move, and the next command.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::budget::{self, Held};
use super::crossings::{Standing, Way};
use super::journal::{State, Step};
use super::side::{Database, Side};
use super::slot::{self, Slot};
use super::standbys::{self, Has};
use super::subscription::{self, Health};
use super::{Move, crossings, rights, stalled};
use crate::manifest::Owner;

/// How long after a copy or a switch the server may take to start the stream. It looks for work every five seconds.
const STARTING: Duration = Duration::from_secs(10);

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
    /// Whether it does not run yet, because the step that begins it was a moment ago.
    pub stream_starts: bool,
    /// The number of tables that are copied, and of all tables.
    pub tables: (i64, i64),
    /// How often the stream has failed since it was created. The log of the receiving server says why.
    pub failures: i64,
    /// The bytes of WAL that the stream's slot holds back; `None` if the slot is missing or lost.
    pub retained_bytes: Option<i64>,
    /// What to know about the slot: it has used half of what it may hold back, or more.
    pub warning: Option<String>,
    /// Where the stream stands and on what it has failed, if it has failed and does not run; or what it waits for.
    pub failing: Option<String>,
    /// What each standby of the side where the tables live has of the stream's slot.
    pub standbys: Vec<String>,
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
pub async fn read(the_move: &mut Move, max_wal: u64) -> Result<Status> {
    let owner = the_move.owner_name.clone();
    if !the_move.state.is_open() {
        let next = format!("splitctl plan {owner}");
        return Ok(Status { owner, next, ..Status::default() });
    }
    let lives = the_move.state.switch.lives;
    let crossings = if lives == Side::Source { crossings::describe(the_move).await? } else { Vec::new() };
    let Move { owner: entry, source, target, journal, state, .. } = the_move;
    let reopened = find_reopened(source, entry, state).await?;
    let (from, to) = lives.order(source, target);
    let name = state.stream();
    let health = subscription::read_health(&mut to.connection, &name).await?;
    let is_new = journal.has_begun_stream(STARTING).await?;
    let warning =
        budget::read(&mut from.connection, &name).await?.and_then(|held| warn(&held, &name, max_wal, lives, &owner));
    let failing = find_failing(from, to, &health, state).await?;
    let retained_bytes = match slot::find(&mut from.connection, &name).await? {
        Slot::Holds(bytes) => Some(bytes),
        Slot::Missing | Slot::Lost => None,
    };
    let standbys = standbys::look(from, entry, &name).await?;
    let seen = Seen { crossings: &crossings, reopened: &reopened, failing: failing.as_deref(), standbys: &standbys };
    let next = way_out(state, retained_bytes, &health, &seen, &owner).unwrap_or_else(|| next(state, &seen, &owner));
    Ok(Status {
        open: true,
        lives: Some(lives),
        generation: state.switch.generation,
        copied: state.copied,
        verified: state.is_verified(),
        pending: state.pending,
        stream_works: health.works,
        stream_starts: !health.works && is_new,
        tables: (health.ready, health.tables),
        failures: health.failures,
        retained_bytes,
        warning,
        next,
        back: back(state, retained_bytes).map(|command| format!("splitctl {command} {owner}")),
        standbys: standbys.into_iter().map(|standing| standing.text).collect(),
        crossings: crossings.into_iter().map(|crossing| crossing.text).collect(),
        failing,
        reopened,
        owner,
    })
}

/// The roles that have rights on the old tables. A killed rollback may have opened these; its repeat, or `complete`, closes
/// them.
async fn find_reopened(source: &mut Database, owner: &Owner, state: &State) -> Result<Vec<String>> {
    match (state.switch.lives, state.pending) {
        (Side::Source, _) | (_, Some(Step::Rollback)) => Ok(Vec::new()),
        (Side::Target, _) => Ok(rights::read(&mut source.connection, owner).await?.roles),
    }
}

/// What to know about the slot, and what to do once it holds all that it may.
fn warn(held: &Held, name: &str, max_wal: u64, lives: Side, owner: &str) -> Option<String> {
    let warning = held.warning(name, max_wal)?;
    Some(if held.is_over(max_wal) { format!("{warning}. {}", budget::way_out(lives, owner)) } else { warning })
}

/// Where a stream stands that fails, or that waits for a standby.
async fn find_failing(from: &mut Database, to: &mut Database, health: &Health, state: &State) -> Result<Option<String>> {
    let name = state.stream();
    let is_failing = health.exists && !health.works && health.failures > 0;
    let waits = health.exists && slot::is_for_standbys(from, &name).await? && standbys::awaited(from).await?.is_some();
    match is_failing || waits {
        true => Ok(Some(stalled::explain(from, to, &name, &state.names).await?)),
        false => Ok(None),
    }
}

/// What the next command depends on besides the journal.
struct Seen<'a> {
    crossings: &'a [Standing],
    reopened: &'a [String],
    failing: Option<&'a str>,
    standbys: &'a [standbys::Standing],
}

/// The command that ends a move whose stream is lost. The end of a move and a committed switch first do the rest of their
/// work; every other step would be refused.
fn way_out(state: &State, retained_bytes: Option<i64>, health: &Health, seen: &Seen<'_>, owner: &str) -> Option<String> {
    let lives = state.switch.lives;
    let goes_on = state.pending.is_some_and(|step| [Step::Abort, Step::Complete, Step::to(lives)].contains(&step));
    // A copy without a stream begins again.
    let is_lost = retained_bytes.is_none() && (state.copied || health.exists) && !goes_on;
    is_lost.then(|| match lives {
        Side::Source => format!("splitctl abort {owner}"),
        Side::Target if !seen.reopened.is_empty() => revoke_by_hand(seen.reopened),
        Side::Target => format!("splitctl complete {owner} --give-up-way-back"),
    })
}

/// The next command, or what a person has to do first.
fn next(state: &State, seen: &Seen<'_>, owner: &str) -> String {
    let by_hand = |what: &str| format!("by hand: {what}");
    let is_ending = matches!(state.pending, Some(Step::Abort | Step::Complete));
    if let Some(failing) = seen.failing.filter(|_| !is_ending) {
        return by_hand(failing);
    }
    if let Some(migrating) = &state.migrating {
        return format!("splitctl migrate {owner} {}", migrating.again);
    }
    let awaited = || seen.standbys.iter().find(|standing| standing.has == Has::NotYet);
    let step = match (state.pending, state.switch.lives) {
        // A step that is repeated does the rest of its work.
        (Some(step), _) => step,
        (None, _) if !state.copied => Step::Copy,
        (None, _) if !state.is_verified() => Step::Verify,
        (None, Side::Source) => {
            let wait = || awaited().map(|standing| by_hand(&format!("wait, {}", standing.text)));
            return take_off(seen.crossings).or_else(wait).unwrap_or_else(|| format!("splitctl {} {owner}", Step::Cutover));
        }
        (None, Side::Target) if !seen.reopened.is_empty() => return revoke_by_hand(seen.reopened),
        (None, Side::Target) => Step::Complete,
    };
    format!("splitctl {step} {owner}")
}

/// `complete` refuses to drop tables that somebody may use.
fn revoke_by_hand(reopened: &[String]) -> String {
    format!("by hand: revoke the rights on the old tables from {}", reopened.join(", "))
}

/// What takes the crossings off. A replacement keeps its object, so it comes before `detach`.
fn take_off(crossings: &[Standing]) -> Option<String> {
    let by_command = crossings.iter().filter_map(|crossing| match &crossing.way {
        Way::Command(command) => Some(command),
        Way::Person | Way::Plan => None,
    });
    let command = by_command.max_by_key(|command| command.starts_with("replace"));
    let by_hand = || crossings.first().map(|crossing| format!("by hand: {}", crossing.text));
    command.map(|command| format!("splitctl {command}")).or_else(by_hand)
}

fn back(state: &State, retained_bytes: Option<i64>) -> Option<Step> {
    match (state.pending, state.switch.lives) {
        (Some(Step::Complete), _) => None,
        (_, Side::Source) => Some(Step::Abort),
        (_, Side::Target) => retained_bytes.map(|_| Step::Rollback),
    }
}
