//! The counts and hashes of the parts of tables without a key. Workers read slices of the tables on both sides, each side
//! as its pages lie, and add them up. One table's sums take 1.5 MiB, and are given away when its last slice is read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::Result;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, query_as, query_scalar};

use super::chunk::row_hash;
use super::moment::{self, Moment};
use super::sides::Pair;
use crate::moving::relations::{self, Table};

/// The number of parts.
pub const PARTS: usize = 1 << 16;
/// How many bytes of a table are worth a worker of their own. Each slice is answered by a row for each part.
const SLICE: i64 = 16 << 20;

/// A table, and those of its parts that may differ: all if there are none.
pub struct Suspect<'a> {
    pub table: &'a Table,
    pub parts: Option<BTreeSet<u16>>,
}

impl Suspect<'_> {
    /// The number of parts.
    pub fn count(&self) -> u64 {
        self.parts.as_ref().map_or(PARTS, BTreeSet::len) as u64
    }

    fn condition(&self) -> String {
        self.parts.as_ref().map_or("true".to_owned(), is_one_of)
    }
}

/// A part on both sides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    /// The rows on the side where the tables live.
    pub here: i64,
    /// The rows on the other side.
    pub there: i64,
    /// The hashes of this side's rows less those of the other side's, modulo 2^64.
    hash: i64,
}

impl Sum {
    /// Whether both sides differ.
    pub fn differs(&self) -> bool {
        self.here != self.there || self.hash != 0
    }
}

/// A table whose slices are being read.
struct Tally<T> {
    slices: usize,
    sums: Vec<Sum>,
    finished: Option<T>,
}

/// Reads the suspected parts as of a moment. `finish` gets the sums of a table when they are whole.
pub async fn read<'a, T>(
    moment: &Moment,
    pairs: &mut [Pair],
    suspects: &[Suspect<'a>],
    finish: impl FnMut(&Suspect<'a>, Vec<Sum>) -> T,
) -> Result<Vec<T>> {
    let mut tallies: Vec<Tally<T>> = Vec::new();
    let mut slices = VecDeque::new();
    for (nth, suspect) in suspects.iter().enumerate() {
        let of = (suspect.table.bytes / SLICE + 1).min(i64::try_from(pairs.len())?);
        slices.extend((0..of).map(|number| (nth, Slice { number, of })));
        tallies.push(Tally { slices: usize::try_from(of)?, sums: Vec::new(), finished: None });
    }
    let (tallies, slices, finish) = (RefCell::new(tallies), RefCell::new(slices), RefCell::new(finish));
    let next = || slices.borrow_mut().pop_front();
    try_join_all(pairs.iter_mut().map(async |pair| {
        moment.join(pair).await?;
        while let Some((nth, slice)) = next() {
            let suspect = &suspects[nth];
            let add = |part: u16, sum: Sum| {
                let sums = &mut tallies.borrow_mut()[nth].sums;
                sums.resize(PARTS, Sum::default());
                let known = &mut sums[usize::from(part)];
                known.here += sum.here;
                known.there += sum.there;
                known.hash = known.hash.wrapping_add(sum.hash);
            };
            let here = |part, rows, hash| add(part, Sum { here: rows, there: 0, hash });
            let there = |part, rows, hash: i64| add(part, Sum { here: 0, there: rows, hash: hash.wrapping_neg() });
            let (here, there) =
                tokio::join!(slice.read(&mut pair.from, suspect, here), slice.read(&mut pair.to, suspect, there));
            here?;
            there?;
            let tally = &mut tallies.borrow_mut()[nth];
            tally.slices -= 1;
            if tally.slices == 0 {
                tally.finished = Some(finish.borrow_mut()(suspect, std::mem::take(&mut tally.sums)));
            }
        }
        moment::leave(pair).await
    }))
    .await?;
    Ok(tallies.into_inner().into_iter().filter_map(|tally| tally.finished).collect())
}

/// A part of a table's pages.
#[derive(Clone, Copy)]
struct Slice {
    number: i64,
    of: i64,
}

impl Slice {
    /// Reads row by row, so that no answer is held.
    async fn read(
        self,
        connection: &mut PgConnection,
        suspect: &Suspect<'_>,
        mut add: impl FnMut(u16, i64, i64),
    ) -> Result<()> {
        let pages = self.condition(connection, suspect.table).await?;
        let statement = format!(
            "select h.part, count(*) as rows, sum(h.hash)::text as hash from {} where {} group by 1",
            hashes(suspect.table, &pages),
            suspect.condition()
        );
        let mut rows = query_as::<_, Read>(AssertSqlSafe(statement)).fetch(connection);
        while let Some(Read { part, rows, hash }) = rows.try_next().await? {
            // The lowest 64 bits of the sum.
            add(u16::try_from(part)?, rows, hash.parse::<i128>()? as i64);
        }
        Ok(())
    }

    /// The pages of the slice. Partitions have the same borders, which the largest one sets.
    async fn condition(self, connection: &mut PgConnection, table: &Table) -> Result<String> {
        let Self { number, of } = self;
        if of == 1 {
            return Ok("true".to_owned());
        }
        let oids = relations::oids(connection, std::slice::from_ref(&table.name)).await?;
        let pages: i64 = query_scalar(PAGES).bind(oids).fetch_one(connection).await?;
        let end = if number + 1 < of { format!(" and t.ctid < '({},0)'", pages * (number + 1) / of) } else { String::new() };
        Ok(format!("t.ctid >= '({},0)'{end}", pages * number / of))
    }
}

#[derive(FromRow)]
struct Read {
    part: i64,
    rows: i64,
    hash: String,
}

/// How many rows of these parts have which hash, on both sides.
pub async fn count_rows(
    pair: &mut Pair,
    table: &Table,
    parts: &BTreeSet<u16>,
) -> Result<(BTreeMap<i64, i64>, BTreeMap<i64, i64>)> {
    let statement = format!("select h.hash, count(*) from {} where {} group by 1", hashes(table, "true"), is_one_of(parts));
    let (here, there) = tokio::join!(
        query_as(AssertSqlSafe(statement.clone())).fetch_all(&mut pair.from),
        query_as(AssertSqlSafe(statement)).fetch_all(&mut pair.to)
    );
    Ok((here?.into_iter().collect(), there?.into_iter().collect()))
}

/// The hashes `h` of the rows with their parts.
fn hashes(table: &Table, condition: &str) -> String {
    let (hash, rows, last) = (row_hash(table), table.rows(), PARTS - 1);
    // `offset 0` keeps Postgres from computing the hash of a row more than once.
    format!(
        "(select r.hash, r.hash & {last} as part from (select {hash} as hash from {rows} t where {condition} offset 0) r) h"
    )
}

fn is_one_of(parts: &BTreeSet<u16>) -> String {
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    format!("h.part = any ('{{{}}}'::int8[])", parts.join(","))
}

/// The pages of the largest of the relations.
const PAGES: &str = r"
    select coalesce(max(pg_relation_size(c.oid) / current_setting('block_size')::int8), 0)
    from pg_class c
    where c.oid = any ($1)
      and c.relkind = 'r'";
