//! Compares rows one by one, in a table with a key.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, query_as};

use super::chunk::{Chunk, is_one_of, key_literal, key_texts, row_hash};
use super::sides::Pair;
use super::wait_for_marker;
use super::writers::wait_until_shown;
use crate::moving::relations::Table;

/// The number of keys in one statement.
const BATCH: usize = 1000;

/// The values of a row's key.
type Key = Vec<String>;

/// The rows to compare.
pub enum Suspects {
    /// Every row of a chunk.
    Chunk(Chunk),
    /// The rows with these keys.
    Rows(Vec<Key>),
}

impl Suspects {
    /// The number of rows, if it is known.
    pub fn count(&self) -> usize {
        match self {
            Self::Chunk(_) => 0,
            Self::Rows(keys) => keys.len(),
        }
    }
}

/// The rows that are not equal.
pub struct Found {
    /// The keys of rows that did not change meanwhile and differ, and how they differ.
    pub proven: Vec<(String, &'static str)>,
    /// The keys of rows that changed meanwhile, or may have.
    pub changed: Vec<Key>,
}

/// Reads this side, waits until all that it read has arrived, and reads the other side. Then waits until this side shows all
/// that has been sent, and reads it again. Versions are compared, since a row may change and change back meanwhile.
pub async fn compare(
    from: &mut PgConnection,
    to: &mut PgConnection,
    owner_name: &str,
    table: &Table,
    suspects: &Suspects,
) -> Result<Found> {
    let before = read(from, table, suspects).await?;
    wait_for_marker(from, to, owner_name).await?;
    let there = read(to, table, suspects).await?;
    let mut keys: BTreeSet<Key> = before.keys().chain(there.keys()).cloned().collect();
    keys.retain(|key| hash(&before, key) != hash(&there, key));
    let mut found = Found { proven: Vec::new(), changed: Vec::new() };
    if keys.is_empty() {
        return Ok(found);
    }
    // By key, not by chunk: a row whose text the other side sorts differently is in another chunk there.
    let differing = Suspects::Rows(keys.iter().cloned().collect());
    let there = read(to, table, &differing).await?;
    let is_shown = wait_until_shown(from, table).await?;
    let after = read(from, table, &differing).await?;
    let later = read_extra(from, to, owner_name, table, (&after, &there)).await?;
    for key in keys {
        let (was, is, other) = (before.get(&key), after.get(&key), there.get(&key));
        let Some(difference) = difference(is, other) else { continue };
        let is_unchanged = is_shown && was == is && (is.is_some() || later.get(&key) == other);
        if is_unchanged {
            found.proven.push((key_literal(table, &key), difference));
        } else {
            found.changed.push(key);
        }
    }
    Ok(found)
}

/// Reads the other side's rows that this side lacks once more, when all that this side has done has arrived. A row that is
/// still there, in the same version, was never this side's: one that came and went meanwhile is gone now, or is a new one.
async fn read_extra(
    from: &mut PgConnection,
    to: &mut PgConnection,
    owner_name: &str,
    table: &Table,
    (here, there): (&Rows, &Rows),
) -> Result<Rows> {
    let extra: Vec<Key> = there.keys().filter(|key| !here.contains_key(*key)).cloned().collect();
    if extra.is_empty() {
        return Ok(Rows::new());
    }
    wait_for_marker(from, to, owner_name).await?;
    read(to, table, &Suspects::Rows(extra)).await
}

/// Compares rows at a moment without writes: what differs is proven.
pub async fn compare_at(pair: &mut Pair, table: &Table, suspects: &Suspects) -> Result<Vec<(String, &'static str)>> {
    let (here, there) = (read(&mut pair.from, table, suspects).await?, read(&mut pair.to, table, suspects).await?);
    let keys: BTreeSet<&Key> = here.keys().chain(there.keys()).collect();
    let differing = keys
        .into_iter()
        .filter_map(|key| difference(here.get(key), there.get(key)).map(|difference| (key_literal(table, key), difference)));
    Ok(differing.collect())
}

/// How a row of the other side differs from this side's.
fn difference(here: Option<&Row>, there: Option<&Row>) -> Option<&'static str> {
    match (here, there) {
        (Some(here), Some(there)) => (here.hash != there.hash).then_some("different"),
        (Some(_), None) => Some("missing"),
        (None, Some(_)) => Some("extra"),
        (None, None) => None,
    }
}

fn hash(rows: &Rows, key: &Key) -> Option<i64> {
    rows.get(key).map(|row| row.hash)
}

/// Rows by their keys.
type Rows = BTreeMap<Key, Row>;

/// A row as one side has it.
#[derive(PartialEq, Eq)]
struct Row {
    hash: i64,
    /// The transaction that wrote it: two versions of a row have two.
    version: i64,
}

#[derive(FromRow)]
struct Read {
    key: Key,
    hash: i64,
    version: i64,
}

async fn read(connection: &mut PgConnection, table: &Table, suspects: &Suspects) -> Result<Rows> {
    let conditions: Vec<String> = match suspects {
        Suspects::Chunk(chunk) => vec![chunk.condition.clone()],
        Suspects::Rows(keys) => keys.chunks(BATCH).map(|keys| is_one_of(table, keys)).collect(),
    };
    let mut rows = Rows::new();
    for condition in conditions {
        let statement = format!(
            "select array[{}] as key, {} as hash, t.xmin::text::int8 as version from {} t where {condition}",
            key_texts(table),
            row_hash(table),
            table.rows(),
        );
        // Row by row, so that no answer is held twice.
        let mut answer = query_as(AssertSqlSafe(statement)).fetch(&mut *connection);
        while let Some(Read { key, hash, version }) = answer.try_next().await? {
            rows.insert(key, Row { hash, version });
        }
    }
    Ok(rows)
}
