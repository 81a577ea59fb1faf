//! Compares a table without a key, in bounded memory.
//!
//! The hash of a row says to which of [`PARTS`] parts it belongs. Both sides count each part and add up its hashes, in two
//! snapshots that are a marker apart. Only the parts that differ are compared again, in newer snapshots: writes between two
//! snapshots reach few parts. A part that differs again and again is compared at a moment without writes: a lock holds
//! writers up while the marker travels. What differs then is proven.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, query_as};

use super::chunk::row_hash;
use super::{Difference, LISTED, Report, wait_for_marker};
use crate::database::execute;
use crate::exit::Refused;
use crate::moving::fence::{self, Locking};
use crate::moving::progress::Progress;
use crate::moving::relations::Table;
use crate::moving::{Database, marker};

/// The number of parts. Their sums take about 10 MiB for both sides.
const PARTS: i64 = 65_536;
/// How often parts are compared before the lock is taken.
const ROUNDS: u32 = 4;
/// The number of rows that are compared one by one, to name the rows that differ.
const NAMED: i64 = 20_000;
/// How long writers may wait for the marker.
const PAUSE: Duration = Duration::from_millis(500);
/// How the lock is tried.
const LOCKING: Locking = Locking { lock_timeout: Duration::from_millis(200), lock_attempts: 20 };

/// The count of the rows of a part and the sum of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    rows: i64,
    hash: i128,
}

type Sums = BTreeMap<i64, Sum>;

/// Compares the table, and adds what it finds to the report.
pub async fn compare(
    report: &mut Report,
    (from, to): (&mut Database, &mut Database),
    owner_name: &str,
    table: &Table,
    deadline: Instant,
    progress: &Progress,
) -> Result<()> {
    let mut suspects: Option<BTreeSet<i64>> = None;
    for round in 0..ROUNDS {
        let mut moment = Moment::take(from, to, owner_name).await?;
        let (here, there) = moment.sums(table, suspects.as_ref()).await?;
        if suspects.is_none() {
            report.rows += here.values().map(|sum| sum.rows.unsigned_abs()).sum::<u64>();
            progress.report(report.rows, None);
        }
        let differing = differing(&here, &there);
        if differing.is_empty() {
            return Ok(());
        }
        if round == 0 {
            report.looked_again += differing.len() as u64;
        }
        let is_steady = suspects.replace(differing) == suspects;
        if is_steady || Instant::now() > deadline {
            break;
        }
    }
    prove(report, (from, to), owner_name, table, &suspects.unwrap_or_default()).await
}

/// Compares the suspected parts at a moment without writes.
async fn prove(
    report: &mut Report,
    (from, to): (&mut Database, &mut Database),
    owner_name: &str,
    table: &Table,
    suspects: &BTreeSet<i64>,
) -> Result<()> {
    let Some(mut moment) = Moment::take_without_writes(from, to, owner_name, table).await? else {
        report.unproven += suspects.len() as u64;
        return Ok(());
    };
    let (here, there) = moment.sums(table, Some(suspects)).await?;
    let mut room = NAMED;
    let mut named = BTreeSet::new();
    for part in differing(&here, &there) {
        let rows = |sums: &Sums| sums.get(&part).map_or(0, |sum| sum.rows);
        room -= rows(&here) + rows(&there);
        if room >= 0 {
            named.insert(part);
            continue;
        }
        // Too many rows to name: at least this many of them differ.
        report.different += (rows(&here) - rows(&there)).unsigned_abs().max(1);
        list(report, table, format!("part {part} of {PARTS}"), "different");
    }
    if named.is_empty() {
        return Ok(());
    }
    let (here, there) = moment.rows(table, &named).await?;
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

fn differing(here: &Sums, there: &Sums) -> BTreeSet<i64> {
    let parts = here.keys().chain(there.keys());
    parts.filter(|part| here.get(part) != there.get(part)).copied().collect()
}

/// A snapshot of each side. The other side's has everything that this side's has, and little more.
struct Moment {
    from: PgConnection,
    to: PgConnection,
}

impl Moment {
    async fn take(from: &mut Database, to: &mut Database, owner_name: &str) -> Result<Self> {
        let (mut here, mut there) = (from.connect().await?, to.connect().await?);
        take_snapshot(&mut here).await?;
        wait_for_marker(&mut from.connection, &mut to.connection, owner_name).await?;
        take_snapshot(&mut there).await?;
        Ok(Self { from: here, to: there })
    }

    /// Both snapshots have the same rows of the table: writers wait while they are taken. Returns `None` if the table cannot
    /// be locked, or if the marker travels too long.
    async fn take_without_writes(
        from: &mut Database,
        to: &mut Database,
        owner_name: &str,
        table: &Table,
    ) -> Result<Option<Self>> {
        let (mut here, mut there) = (from.connect().await?, to.connect().await?);
        let lock = format!("begin; lock table {} in share mode", table.name.sql());
        let tables = std::slice::from_ref(&table.name);
        let locked = fence::patiently(&mut from.connection, tables, LOCKING, async |connection: &mut PgConnection| {
            execute(connection, lock.clone()).await
        });
        match locked.await {
            Err(error) if error.is::<Refused>() => return Ok(None),
            locked => locked?,
        }
        let mut markers = from.connect().await?;
        let token = marker::set(&mut markers, owner_name).await?;
        let has_arrived = marker::wait(&mut to.connection, owner_name, token, PAUSE).await?;
        if has_arrived {
            take_snapshot(&mut here).await?;
            take_snapshot(&mut there).await?;
        }
        execute(&mut from.connection, "rollback").await?;
        Ok(has_arrived.then_some(Self { from: here, to: there }))
    }

    /// The sums of the parts on both sides; of all parts if none are given.
    async fn sums(&mut self, table: &Table, parts: Option<&BTreeSet<i64>>) -> Result<(Sums, Sums)> {
        let statement = format!(
            "select h.part, count(*) as rows, sum(h.hash)::text as hash from {} where {} group by 1",
            hashes(table),
            condition(parts)
        );
        let (here, there) = tokio::join!(read_sums(&mut self.from, &statement), read_sums(&mut self.to, &statement));
        Ok((here?, there?))
    }

    /// How many rows of these parts have which hash.
    async fn rows(&mut self, table: &Table, parts: &BTreeSet<i64>) -> Result<(BTreeMap<i64, i64>, BTreeMap<i64, i64>)> {
        let statement =
            format!("select h.hash, count(*) from {} where {} group by 1", hashes(table), condition(Some(parts)));
        let here = query_as(AssertSqlSafe(statement.clone())).fetch_all(&mut self.from).await?;
        let there = query_as(AssertSqlSafe(statement)).fetch_all(&mut self.to).await?;
        Ok((here.into_iter().collect(), there.into_iter().collect()))
    }
}

async fn take_snapshot(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    execute(connection, "begin isolation level repeatable read read only; select 1").await
}

fn hashes(table: &Table) -> String {
    let (hash, name) = (row_hash(table), table.name.sql());
    // `offset 0` keeps Postgres from computing the hash of a row more than once.
    format!("(select r.hash, r.hash & {} as part from (select {hash} as hash from {name} t offset 0) r) h", PARTS - 1)
}

fn condition(parts: Option<&BTreeSet<i64>>) -> String {
    let Some(parts) = parts else { return "true".to_owned() };
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    format!("h.part = any ('{{{}}}'::int8[])", parts.join(","))
}

#[derive(FromRow)]
struct Read {
    part: i64,
    rows: i64,
    hash: String,
}

/// Reads row by row, so that no side's answer is held twice.
async fn read_sums(connection: &mut PgConnection, statement: &str) -> Result<Sums> {
    let mut sums = Sums::new();
    let mut rows = query_as::<_, Read>(AssertSqlSafe(statement.to_owned())).fetch(connection);
    while let Some(Read { part, rows, hash }) = rows.try_next().await? {
        sums.insert(part, Sum { rows, hash: hash.parse()? });
    }
    Ok(sums)
}
