//! Compares the rows of both sides while writes go on.
//!
//! Rows are compared in chunks, by a hash that does not depend on their order. Chunks that differ are compared row by row:
//! read the side where the tables live, wait for a marker in the stream, read the other side, and read the first side
//! again. A row that was the same in both reads of the first side has arrived, or it never will: its difference is proven.
//! A row that changed meanwhile is compared again. A table without a key has no chunks; [`parts`] compares it.

mod chunk;
mod keys;
mod parts;
mod rows;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;

use super::journal::Step;
use super::progress::Progress;
use super::relations::{self, Table};
use super::side::Side;
use super::{Database, Move, crash_point, marker, stream};
use crate::exit::require;
use crate::names::Qualified;
use chunk::{Chunk, Chunks, Sum};
use rows::Suspects;

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
    /// How long to compare rows again that change all the time
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    pub patience: Duration,
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
        compare_rows(&mut report, the_move, options).await?;
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
    let health = stream::read_health(&mut to.connection, &state.stream()).await?;
    require!(
        health.exists && health.ready == health.tables,
        "{owner_name}: there is no stream from the {} to the {}: repeat the last command",
        from.side,
        to.side
    );
    Ok(())
}

async fn compare_definitions(report: &mut Report, Move { owner, source, target, state, .. }: &mut Move) -> Result<()> {
    for database in [source, target] {
        let shape = relations::shape(&mut database.connection, &owner.tables).await?;
        let differences = relations::differences(&state.begun.shape, &shape);
        report.definitions.extend(differences.into_iter().map(|line| format!("{}: {line}", database.side)));
    }
    Ok(())
}

async fn compare_rows(report: &mut Report, the_move: &mut Move, options: &Options) -> Result<()> {
    let Move { owner, owner_name, source, target, .. } = the_move;
    let (from, to) = report.lives.order(source, target);
    let known = relations::tables(&mut from.connection, &owner.tables).await?;
    let progress = Progress::new("comparing", known.iter().map(|table| table.estimate).sum());
    let begun = Instant::now();
    let mut suspects = Vec::new();
    for table in known.iter().filter(|table| !table.key.is_empty()) {
        compare_chunks(report, (&mut *from, &mut *to), table, options.chunk, &mut suspects, &progress).await?;
    }
    report.looked_again = suspects.len() as u64;
    for table in known.iter().filter(|table| table.key.is_empty()) {
        let deadline = Instant::now() + options.patience;
        parts::compare(report, (&mut *from, &mut *to), owner_name, table, deadline, &progress).await?;
    }
    report.rate = report.rows as f64 / begun.elapsed().as_secs_f64().max(0.000_001);
    crash_point("chunks compared");
    let deadline = Instant::now() + options.patience;
    for (table, chunk) in suspects {
        compare_again(report, (&mut *from, &mut *to), owner_name, table, chunk, deadline).await?;
    }
    report.broken_keys = keys::list_broken(&mut to.connection, &owner.tables).await?;
    Ok(())
}

/// Compares a table by the hashes of its chunks, and collects the chunks that differ.
async fn compare_chunks<'a>(
    report: &mut Report,
    (from, to): (&mut Database, &mut Database),
    table: &'a Table,
    size: u32,
    suspects: &mut Vec<(&'a Table, Chunk)>,
    progress: &Progress,
) -> Result<()> {
    let mut chunks = Chunks::new(table, size);
    while let Some(chunk) = chunks.next(&mut from.connection).await? {
        let (here, there) = tokio::join!(chunk.sum(&mut from.connection, table), chunk.sum(&mut to.connection, table));
        let (here, there) = (here?, there?);
        report.rows += here.rows.unsigned_abs();
        if here != there {
            suspects.push((table, chunk));
        }
        progress.report(report.rows, None);
    }
    Ok(())
}

/// Compares a chunk row by row until each row is equal or proven different, or the deadline has passed.
async fn compare_again(
    report: &mut Report,
    (from, to): (&mut Database, &mut Database),
    owner_name: &str,
    table: &Table,
    chunk: Chunk,
    deadline: Instant,
) -> Result<()> {
    let mut pending = Suspects::Chunk(chunk);
    loop {
        let found = rows::compare(&mut from.connection, &mut to.connection, owner_name, table, &pending).await?;
        report.different += found.proven.len() as u64;
        let room = LISTED.saturating_sub(report.differences.len());
        let proven = found.proven.into_iter().take(room);
        report.differences.extend(proven.map(|(key, difference)| Difference { table: table.name.clone(), key, difference }));
        if found.changed.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            report.unproven += found.changed.len() as u64;
            return Ok(());
        }
        pending = Suspects::Rows(found.changed);
    }
}

/// The count and the hash of all rows of a table.
pub(super) async fn hash_rows(connection: &mut PgConnection, table: &Table) -> Result<Sum> {
    Chunk { condition: "true".to_owned() }.sum(connection, table).await
}

/// Waits until everything that is committed on one side has arrived on the other.
async fn wait_for_marker(from: &mut PgConnection, to: &mut PgConnection, owner_name: &str) -> Result<()> {
    let token = marker::set(from, owner_name).await?;
    require!(
        marker::wait(to, owner_name, token, LAG).await?,
        "{owner_name}: the stream is more than {LAG:?} behind: wait, and repeat the command"
    );
    Ok(())
}
