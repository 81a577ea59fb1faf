//! The rows of the stand-in of the source: all of them, a sample, or none.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use sqlx::PgConnection;

use super::sample;
use super::tables::{Filled, Table};
use crate::database::{copy_rows, describe, execute};
use crate::moving::Progress;

/// A rehearsal of all rows that would take longer uses a sample.
const PATIENCE: Duration = Duration::from_secs(600);
/// All rows of a smaller database are used without a measurement.
const SMALL: i64 = 64 << 20;
/// How many bytes are copied to measure the rate.
const MEASURED: i64 = 8 << 20;
/// How often each byte is read or written in a rehearsal: filled, copied, indexed twice, and compared three times.
const PASSES: f64 = 7.0;

/// Which rows the rehearsal uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Rows {
    /// Every row of every table.
    All,
    /// About a thousand rows of each table, and the rows that their foreign keys need.
    Sample,
    /// None.
    None,
}

impl Rows {
    /// For people.
    pub fn shown(self) -> &'static str {
        match self {
            Self::All => "all rows",
            Self::Sample => "a sample",
            Self::None => "no rows",
        }
    }
}

/// The choice of rows, and the reason.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// The choice.
    pub rows: Rows,
    /// The reason.
    pub why: String,
}

/// Decides which rows to use, unless somebody has.
pub async fn choose(
    wanted: Option<Rows>,
    source: &mut PgConnection,
    standin: &mut PgConnection,
    tables: &[Table],
) -> Result<Choice> {
    let bytes: i64 = tables.iter().map(|table| table.bytes).sum();
    let megabytes = bytes / 1_000_000;
    if let Some(rows) = wanted {
        return Ok(Choice { rows, why: "as --rows says".to_owned() });
    }
    if bytes <= SMALL {
        return Ok(Choice { rows: Rows::All, why: format!("the tables have {megabytes} MB") });
    }
    let rate = measure(source, standin, tables).await?;
    let seconds = bytes as f64 / rate * PASSES;
    let estimate = format!(
        "about {} for all {megabytes} MB, at the {:.1} MB/s that were measured, each byte {PASSES} times",
        humantime::format_duration(Duration::from_secs(seconds as u64)),
        rate / 1e6
    );
    let rows = if seconds <= PATIENCE.as_secs_f64() { Rows::All } else { Rows::Sample };
    Ok(Choice { rows, why: estimate })
}

/// Bytes a second from the largest table to the stand-in, which keeps none of them.
async fn measure(source: &mut PgConnection, standin: &mut PgConnection, tables: &[Table]) -> Result<f64> {
    let Some(largest) = tables.iter().max_by_key(|table| table.bytes) else { return Ok(f64::MAX) };
    let width = (largest.bytes / largest.estimate.max(1)).max(1);
    let query = format!("select {} from {} limit {}", largest.columns.join(", "), largest.from(), MEASURED / width + 1);
    let begun = Instant::now();
    execute(standin, "begin").await?;
    let copied = copy_rows(source, &query, standin, &largest.destination(), |_, _| Duration::ZERO).await;
    execute(standin, "rollback").await?;
    Ok(copied?.1.max(1) as f64 / begun.elapsed().as_secs_f64().max(0.001))
}

/// Fills the stand-in, whose tables have no triggers, keys and indexes yet.
pub async fn fill(rows: Rows, source: &mut PgConnection, standin: &mut PgConnection, tables: &[Table]) -> Result<Filled> {
    let mut filled = Filled::default();
    if rows == Rows::None {
        return Ok(filled);
    }
    let expected = |table: &Table| match rows {
        Rows::All => table.estimate.max(0),
        _ => table.estimate.clamp(0, sample::ROWS),
    };
    let progress = Progress::new("filling the stand-in of the source", tables.iter().map(expected).sum());
    let mut done = 0;
    for table in tables {
        let query = match rows {
            Rows::All => format!("select {} from {}", table.columns.join(", "), table.from()),
            _ => sample::query(table),
        };
        let before = filled.bytes;
        execute(source, "savepoint one_table").await?;
        let report = |_, bytes| {
            progress.report(done, Some(before + bytes));
            Duration::ZERO
        };
        match copy_rows(source, &query, standin, &table.destination(), report).await {
            Ok((rows, bytes)) => {
                done += rows;
                filled.bytes += bytes;
                filled.rows.push((table.name.clone(), rows));
            }
            Err(error) => {
                execute(source, "rollback to savepoint one_table").await?;
                filled.missing.push(format!("{}: its rows cannot be copied: {}", table.name, describe(&error)));
            }
        }
        progress.report(done, Some(filled.bytes));
    }
    if rows == Rows::Sample {
        sample::close(source, standin, tables, &mut filled).await?;
    }
    Ok(filled)
}
