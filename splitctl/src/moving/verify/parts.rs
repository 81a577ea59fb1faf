//! Compares the tables without a key, in bounded memory.
//!
//! The hash of a row says to which of [`PARTS`] parts it belongs. Both sides count each part and add up its hashes, in two
//! snapshots that are a marker apart. Only the parts that differ are compared again, in newer snapshots: writes between two
//! snapshots reach few parts. A part that differs again and again is compared at a moment without writes: a lock holds
//! writers up while the marker travels. What differs then is proven. [`sums`] reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::moment::Moment;
use super::sides::{Pair, Sides};
use super::sums::{self, PARTS, Suspect};
use super::{Difference, LISTED, Report};
use crate::moving::progress::Progress;
use crate::moving::relations::Table;

/// How often parts are compared before the lock is taken.
const ROUNDS: u32 = 4;
/// The number of rows that are compared one by one, to name the rows that differ.
const NAMED: i64 = 20_000;

/// Compares the tables, all of them in the same snapshots, and adds what it finds to the report.
pub async fn compare(
    report: &mut Report,
    sides: &Sides<'_>,
    pairs: &mut [Pair],
    tables: &[&Table],
    patience: Duration,
    progress: &Progress,
) -> Result<()> {
    let mut suspects: Vec<Suspect<'_>> = tables.iter().map(|table| Suspect { table, parts: None }).collect();
    let mut deadline = None;
    for _ in 0..ROUNDS {
        if suspects.is_empty() {
            return Ok(());
        }
        let moment = Moment::take(sides, &mut pairs[0]).await?;
        let found = find(report, &moment, pairs, &suspects, progress).await?;
        if deadline.is_none() {
            report.looked_again += found.iter().map(Suspect::count).sum::<u64>();
        }
        let is_steady = is_same(&found, &suspects);
        suspects = found;
        if is_steady || Instant::now() > *deadline.get_or_insert(Instant::now() + patience) {
            break;
        }
    }
    for suspect in suspects {
        prove(report, sides, pairs, suspect).await?;
    }
    Ok(())
}

/// The parts of the suspects that differ. Rows count the first time that they are read.
async fn find<'a>(
    report: &mut Report,
    moment: &Moment,
    pairs: &mut [Pair],
    suspects: &[Suspect<'a>],
    progress: &Progress,
) -> Result<Vec<Suspect<'a>>> {
    let found = sums::read(moment, pairs, suspects, |suspect, sums| {
        if suspect.parts.is_none() {
            report.rows += sums.iter().map(|sum| sum.here.unsigned_abs()).sum::<u64>();
            progress.report(report.rows, None);
        }
        let parts = sums.iter().zip(0..=u16::MAX);
        let parts = parts.filter(|(sum, _)| sum.differs()).map(|(_, part)| part).collect();
        Suspect { table: suspect.table, parts: Some(parts) }
    });
    Ok(found.await?.into_iter().filter(|suspect| suspect.count() > 0).collect())
}

fn is_same(some: &[Suspect<'_>], others: &[Suspect<'_>]) -> bool {
    let of = |suspect: &Suspect<'_>| (suspect.table.name.clone(), suspect.parts.clone());
    some.iter().map(of).eq(others.iter().map(of))
}

/// Compares the suspected parts of a table at a moment without writes.
async fn prove(report: &mut Report, sides: &Sides<'_>, pairs: &mut [Pair], suspect: Suspect<'_>) -> Result<()> {
    let table = suspect.table;
    let Some(mut moment) = Moment::take_without_writes(sides, &mut pairs[0], table).await? else {
        report.unproven += suspect.count();
        return Ok(());
    };
    let found = sums::read(&moment, pairs, &[suspect], |_, sums| sums).await?;
    let mut room = NAMED;
    let mut named = BTreeSet::new();
    for (sum, part) in found.into_iter().flatten().zip(0..=u16::MAX).filter(|(sum, _)| sum.differs()) {
        room -= sum.here + sum.there;
        if room >= 0 {
            named.insert(part);
            continue;
        }
        // Too many rows to name: at least this many of them differ.
        report.different += (sum.here - sum.there).unsigned_abs().max(1);
        list(report, table, format!("part {part} of {PARTS}"), "different");
    }
    if named.is_empty() {
        return Ok(());
    }
    let (here, there) = sums::count_rows(&mut moment.holders, table, &named).await?;
    let hashes: BTreeSet<i64> = here.keys().chain(there.keys()).copied().collect();
    for hash in hashes {
        let count = |rows: &BTreeMap<i64, i64>| rows.get(&hash).copied().unwrap_or(0);
        let (here, there) = (count(&here), count(&there));
        if here != there {
            report.different += (here - there).unsigned_abs();
            list(report, table, hash.to_string(), if here > there { "missing" } else { "extra" });
        }
    }
    Ok(())
}

fn list(report: &mut Report, table: &Table, key: String, difference: &'static str) {
    if report.differences.len() < LISTED {
        report.differences.push(Difference { table: table.name.clone(), key, difference });
    }
}
