//! Compares the rows of both sides while writes go on.
//!
//! Several workers compare rows at a time ([`sides`]), in chunks, by a hash that does not depend on their order. Chunks that
//! differ are compared row by row: read the side where the tables live, wait for a marker in the stream, read the other
//! side, and read the first side again, once it shows what it has sent ([`writers`]). A row that was in the same version in
//! both reads of the first side has arrived, or it never will: its difference is proven. A row that changed meanwhile is
//! compared again, and in the end under a lock that holds writers up for some milliseconds ([`keyed`]). A table without a
//! key has no chunks; [`parts`] compares it.

mod chunk;
mod keyed;
mod keys;
mod moment;
mod parts;
mod rows;
mod sides;
mod sums;
mod writers;

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;

use super::budget::Budget;
use super::journal::Step;
use super::progress::Progress;
use super::relations::{self, Table};
use super::side::Side;
use super::{Move, budget, crash_point, hanging, marker, shape, stalled, subscription};
use crate::exit::{Refused, require};
use crate::names::Qualified;
use chunk::{Chunk, Sum};
use sides::Sides;

/// How many differences the report lists. It counts the rest.
const LISTED: usize = 20;
/// How long the stream may take for the marker.
const LAG: Duration = Duration::from_secs(60);

/// Flags of `verify`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Rows in a chunk
    #[arg(long, default_value_t = 20_000)]
    pub chunk: u32,
    /// How long to try the lock under which rows are compared that change all the time
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// How many chunks and slices to compare at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub jobs: u8,
    #[command(flatten)]
    pub budget: Budget,
}

/// The result of a comparison.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The owner.
    pub owner: String,
    /// The side where the tables live, with which the other side is compared.
    pub lives: Side,
    /// The number of rows.
    pub rows: u64,
    /// The number of chunks that were compared row by row, and of parts of tables without a key that were compared again.
    pub looked_again: u64,
    /// Rows a second.
    pub rate: f64,
    /// The number of rows whose difference is proven; in a table without a key, at least that many.
    pub different: u64,
    /// The number of rows that changed too often to compare; in a table without a key, the number of parts.
    pub unproven: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Foreign keys among the tables that rows of the other side break.
    pub broken_keys: Vec<String>,
    /// Differences of the definitions.
    pub definitions: Vec<String>,
    /// Indexes, statistics and comments that have changed since the copy, and that the other side does not have.
    pub notes: Vec<String>,
}

/// A row that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Its table.
    pub table: Qualified,
    /// Its key as an SQL literal; in a table without a key, the hash of the row.
    pub key: String,
    /// `missing`, `extra` or `different` on the side that does not own the tables.
    pub difference: &'static str,
}

impl Report {
    /// Whether both sides are proven equal.
    pub fn is_equal(&self) -> bool {
        self.different == 0 && self.unproven == 0 && self.broken_keys.is_empty() && self.definitions.is_empty()
    }

    /// Counts differences, and lists the first of them.
    fn add(&mut self, table: &Table, proven: Vec<(String, &'static str)>) {
        self.different += proven.len() as u64;
        let room = LISTED.saturating_sub(self.differences.len());
        let listed = proven.into_iter().take(room);
        self.differences.extend(listed.map(|(key, difference)| Difference { table: table.name.clone(), key, difference }));
    }
}

/// Compares both sides. If they are equal, the journal records it.
///
/// # Errors
/// If there is nothing to compare yet, or a database fails.
pub async fn run(the_move: &mut Move, options: &Options) -> Result<Report> {
    the_move.check_open()?;
    check_stream(the_move).await?;
    let (owner, lives) = (the_move.owner_name.clone(), the_move.state.switch.lives);
    let mut report = Report { owner, lives, ..Report::default() };
    compare_definitions(&mut report, the_move).await?;
    if report.definitions.is_empty() {
        let compare = async |the_move: &mut Move| match compare_rows(&mut report, the_move, options).await {
            Err(error) => Err(explain(error, the_move).await),
            Ok(()) => Ok(()),
        };
        budget::within(the_move, options.budget.max_wal, compare).await?;
    }
    if report.is_equal() {
        let detail = json!({ "generation": the_move.state.switch.generation, "rows": report.rows });
        the_move.journal.record(Step::Verify, detail).await?;
        the_move.read_state().await?;
    }
    Ok(report)
}

async fn check_stream(Move { owner_name, source, target, state, .. }: &mut Move) -> Result<()> {
    require!(state.copied, "{owner_name}: the copy is not done: `splitctl copy {owner_name}`");
    state.check_not_ending(owner_name)?;
    let (from, to) = state.switch.lives.order(source, target);
    let health = subscription::read_health(&mut to.connection, &state.stream()).await?;
    require!(
        health.exists && health.ready == health.tables,
        "{owner_name}: there is no stream from the {} to the {}: repeat the last command",
        from.side,
        to.side
    );
    Ok(())
}

/// What is refused while rows are compared is a stream that does not get on.
async fn explain(error: anyhow::Error, Move { source, target, state, .. }: &mut Move) -> anyhow::Error {
    if !error.is::<Refused>() {
        return error;
    }
    let (from, to) = state.switch.lives.order(source, target);
    match stalled::explain(from, to, &state.stream(), &state.names).await {
        Ok(text) => Refused(format!("{error}. {text}")).into(),
        Err(_) => error,
    }
}

async fn compare_definitions(report: &mut Report, the_move: &mut Move) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    let sides = (&mut *source, &mut *target);
    for change in hanging::compare(owner, sides, state.known.as_ref(), report.lives).await?.1 {
        let text = format!("{}: {}. Make this change on the {} too", report.lives, change.text, report.lives.other());
        if change.is_harmless { &mut report.notes } else { &mut report.definitions }.push(text);
    }
    for database in [source, target] {
        let shape = shape::read(&mut database.connection, owner).await?;
        let differences = shape::differences(&state.begun.shape, &shape);
        report.definitions.extend(differences.into_iter().map(|line| format!("{}: {line}", database.side)));
    }
    Ok(())
}

async fn compare_rows(report: &mut Report, the_move: &mut Move, options: &Options) -> Result<()> {
    let Move { owner, owner_name, source, target, .. } = the_move;
    let (from, to) = report.lives.order(source, target);
    let mut known = relations::tables(&mut from.connection, &owner.tables).await?;
    known.sort_by_key(|table| Reverse(table.bytes));
    let (keyed, keyless): (Vec<&Table>, Vec<&Table>) = known.iter().partition(|table| !table.key.is_empty());
    let progress = Progress::new("comparing", known.iter().map(|table| table.estimate).sum());
    let sides = Sides { from, to, owner_name };
    let mut pairs = sides.connect_all(options.jobs).await?;
    let begun = Instant::now();
    let differing = keyed::compare(report, &mut pairs, &keyed, options.chunk, &progress).await?;
    report.looked_again = differing.len() as u64;
    parts::compare(report, &sides, &mut pairs, &keyless, options.patience, &progress).await?;
    report.rate = report.rows as f64 / begun.elapsed().as_secs_f64().max(0.000_001);
    crash_point("chunks compared");
    let deadline = Instant::now() + options.patience;
    keyed::compare_again(report, &sides, &mut pairs, differing, deadline).await?;
    report.differences.sort_by(|one, other| (&one.table, &one.key).cmp(&(&other.table, &other.key)));
    report.broken_keys = keys::list_broken(&mut to.connection, &owner.tables).await?;
    Ok(())
}

/// The count and the hash of all rows of a table.
pub(super) async fn hash_rows(connection: &mut PgConnection, table: &Table) -> Result<Sum> {
    Chunk { condition: "true".to_owned() }.sum(connection, table).await
}

/// Waits until everything that is committed on one side has arrived on the other.
pub(super) async fn wait_for_marker(from: &mut PgConnection, to: &mut PgConnection, owner_name: &str) -> Result<()> {
    let token = marker::set(from, owner_name).await?;
    require!(
        marker::wait(to, owner_name, token, LAG).await?,
        "{owner_name}: the stream is more than {LAG:?} behind: wait, and repeat the command"
    );
    Ok(())
}
