//! Whether both sides have the same rows, while writes go on.
//!
//! Rows are compared in chunks by a hash that does not depend on their order. Only chunks that differ are looked at again, row
//! by row: the side where the tables live is read, a marker is sent through the stream and awaited, the other side is read, and
//! the first one is read once more. A row that stood still between the two reads has arrived, or it never will: that it differs
//! is then proven. One that changed meanwhile is looked at again.

mod chunk;
mod rows;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::journal::{State, append, verified};
use super::progress::Progress;
use super::relations::{self, Table, oids};
use super::side::Place;
use super::stream;
use super::{Move, crash_point};
use crate::exit::require;
use crate::names::Qualified;
use chunk::{Chunk, Chunks};

/// Differences told one by one; more are only counted.
const TOLD: usize = 20;

/// How to compare.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Rows in a chunk
    #[arg(long, default_value_t = 20_000)]
    pub chunk: u32,
    /// How long rows that change all the time are looked at again, in seconds
    #[arg(long, default_value_t = 60)]
    pub patience: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whose tables.
    pub owner: String,
    /// The side that the other one is compared with.
    pub lives: Place,
    /// Rows compared.
    pub rows: u64,
    /// Chunks that had to be looked at row by row.
    pub looked_again: u64,
    /// Rows a second.
    pub rate: f64,
    /// Rows that differ: proven.
    pub different: u64,
    /// Rows that changed too often to tell.
    pub unproven: u64,
    /// The first of them, by table and key.
    pub differences: Vec<Difference>,
    /// Foreign keys among the tables that rows of the other side break.
    pub broken_keys: Vec<String>,
    /// Differences of the definitions.
    pub definitions: Vec<String>,
}

/// A row that is not the same on both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The table.
    pub table: Qualified,
    /// The row's key, as SQL would write it; for a table without a key, the hash of the row.
    pub key: String,
    /// `missing`, `extra` or `different`, seen from the side that is compared.
    pub difference: &'static str,
}

impl Report {
    /// Whether both sides are the same, as far as can be known.
    pub fn is_equal(&self) -> bool {
        self.different == 0 && self.unproven == 0 && self.broken_keys.is_empty() && self.definitions.is_empty()
    }
}

/// Compares, and notes in the journal that they are equal if they are.
///
/// # Errors
/// If there is nothing to compare yet, or a database fails.
pub async fn run(moving: &mut Move, options: &Options) -> Result<Report> {
    let state = moving.state()?.clone();
    require!(state.copied, "the copy has not come to its end: `splitctl copy {}`", moving.owner);
    state.check_goes_on(&moving.owner)?;
    let names = moving.names(state.number);
    let (owner, tables) = (moving.owner.clone(), moving.moving().tables.clone());
    let (from, to) = moving.sides(state.lives);
    let health = stream::health(&mut to.connection, &names.stream(state.stream())).await?;
    require!(
        health.exists && health.ready.0 == health.ready.1,
        "the stream from {} to {} is not there: repeat the last command",
        from.place,
        to.place
    );
    let known = relations::tables(&mut from.connection, &tables).await?;
    let expected: i64 = known.iter().map(|table| table.estimate).sum();
    let progress = Progress::new("comparing", expected.max(0).unsigned_abs());
    let begun = Instant::now();
    let mut report = Report {
        owner: owner.clone(),
        lives: state.lives,
        rows: 0,
        looked_again: 0,
        rate: 0.0,
        different: 0,
        unproven: 0,
        differences: Vec::new(),
        broken_keys: Vec::new(),
        definitions: Vec::new(),
    };
    for side in [&mut *from, &mut *to] {
        let shape = relations::shape(&mut side.connection, &tables).await?;
        let differences = relations::differences(&state.begun.shape, &shape);
        report.definitions.extend(differences.into_iter().map(|line| format!("{}: {line}", side.place)));
    }
    let mut suspects: Vec<(usize, Chunk)> = Vec::new();
    if report.definitions.is_empty() {
        for (number, table) in known.iter().enumerate() {
            let mut chunks = Chunks::new(table, options.chunk);
            while let Some(chunk) = chunks.next(&mut from.connection).await? {
                let (here, there) =
                    tokio::join!(chunk.sum(&mut from.connection, table), chunk.sum(&mut to.connection, table));
                let (here, there) = (here?, there?);
                report.rows += here.rows.unsigned_abs();
                if here != there {
                    suspects.push((number, chunk));
                }
                progress.at(report.rows, None);
            }
        }
        report.rate = report.rows as f64 / begun.elapsed().as_secs_f64().max(0.000_001);
        report.looked_again = suspects.len() as u64;
        crash_point("chunks compared");
        look_again(&mut report, (from, to), &owner, &known, suspects, Duration::from_secs(options.patience)).await?;
        let (_, to) = moving.sides(state.lives);
        report.broken_keys = broken_keys(&mut to.connection, &tables).await?;
    }
    drop(progress);
    if report.is_equal() {
        note(moving, &state, report.rows).await?;
    }
    Ok(report)
}

async fn note(moving: &mut Move, state: &State, rows: u64) -> Result<()> {
    let detail = verified(state.generation, rows);
    append(&mut moving.source.connection, state.number, &moving.owner, "verify", "record", &detail).await?;
    moving.read_state().await
}

/// Row by row, until each is equal or proven different, or patience is at its end.
async fn look_again(
    report: &mut Report,
    (from, to): (&mut super::Side, &mut super::Side),
    owner: &str,
    tables: &[Table],
    suspects: Vec<(usize, Chunk)>,
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    for (number, chunk) in suspects {
        let table = &tables[number];
        let mut pending = rows::Suspects::Chunk(chunk);
        loop {
            let found = rows::compare(&mut from.connection, &mut to.connection, owner, table, &pending).await?;
            report.different += found.proven.len() as u64;
            for (key, difference) in found.proven {
                if report.differences.len() < TOLD {
                    report.differences.push(Difference { table: table.name.clone(), key, difference });
                }
            }
            if found.moving.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                report.unproven += found.moving.len() as u64;
                break;
            }
            pending = rows::Suspects::Rows(found.moving);
        }
    }
    Ok(())
}

/// Foreign keys do not look at what the stream brings: whether all rows keep them.
async fn broken_keys(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>> {
    let moving = oids(tables);
    let keys = format!(
        "select c.conname::text, format('%I.%I', n.nspname, t.relname), format('%I.%I', rn.nspname, r.relname),
             array(select quote_ident(a.attname) from unnest(c.conkey) with ordinality k (attnum, place) join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum order by k.place),
             array(select quote_ident(a.attname) from unnest(c.confkey) with ordinality k (attnum, place) join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum order by k.place)
         from pg_constraint c
         join pg_class t on t.oid = c.conrelid
         join pg_namespace n on n.oid = t.relnamespace
         join pg_class r on r.oid = c.confrelid
         join pg_namespace rn on rn.oid = r.relnamespace
         where c.contype = 'f' and c.convalidated and c.conparentid = 0 and c.conrelid in ({moving}) and c.confrelid in ({moving})
         order by 1"
    );
    let mut broken = Vec::new();
    for row in sqlx::query(AssertSqlSafe(keys)).fetch_all(&mut *connection).await? {
        let (name, table, referred): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (columns, others): (Vec<String>, Vec<String>) = (row.try_get(3)?, row.try_get(4)?);
        let join: Vec<String> =
            columns.iter().zip(&others).map(|(column, other)| format!("r.{other} = t.{column}")).collect();
        let present: Vec<String> = columns.iter().map(|column| format!("t.{column} is not null")).collect();
        let ask = format!(
            "select exists (select from {table} t where {} and not exists (select from {referred} r where {}))",
            present.join(" and "),
            join.join(" and ")
        );
        if sqlx::query_scalar(AssertSqlSafe(ask)).fetch_one(&mut *connection).await? {
            broken.push(format!("{name} on {table}"));
        }
    }
    Ok(broken)
}

/// Rows by their key, or by their own hash: its count and hash.
type Rows = BTreeMap<String, (i64, String)>;
