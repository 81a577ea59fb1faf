//! Compares rows one by one, in a table with a key.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use super::chunk::{Chunk, is_one_of, key_literal, key_texts, row_hash};
use super::wait_for_marker;
use crate::database::fetch;
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

/// The rows that are not equal.
pub struct Found {
    /// The keys of rows that did not change meanwhile and differ, and how they differ.
    pub proven: Vec<(String, &'static str)>,
    /// The keys of rows that changed meanwhile.
    pub changed: Vec<Key>,
}

/// Reads this side, waits until all that it read has arrived, reads the other side, and reads this side again.
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
    keys.retain(|key| before.get(key) != there.get(key));
    let mut found = Found { proven: Vec::new(), changed: Vec::new() };
    if keys.is_empty() {
        return Ok(found);
    }
    // By key, not by chunk: a row whose text the other side sorts differently is in another chunk there.
    let differing = Suspects::Rows(keys.iter().cloned().collect());
    let (after, there) = (read(from, table, &differing).await?, read(to, table, &differing).await?);
    for key in keys {
        let (was, is, other) = (before.get(&key), after.get(&key), there.get(&key));
        let difference = match (is, other) {
            (is, other) if is == other => continue,
            _ if was != is => {
                found.changed.push(key);
                continue;
            }
            (Some(_), None) => "missing",
            (None, Some(_)) => "extra",
            _ => "different",
        };
        found.proven.push((key_literal(table, &key), difference));
    }
    Ok(found)
}

/// The hashes of rows by their keys.
type Rows = BTreeMap<Key, i64>;

#[derive(FromRow)]
struct Read {
    key: Key,
    hash: i64,
}

async fn read(connection: &mut PgConnection, table: &Table, suspects: &Suspects) -> Result<Rows> {
    let conditions: Vec<String> = match suspects {
        Suspects::Chunk(chunk) => vec![chunk.condition.clone()],
        Suspects::Rows(keys) => keys.chunks(BATCH).map(|keys| is_one_of(table, keys)).collect(),
    };
    let mut rows = Rows::new();
    for condition in conditions {
        let statement = format!(
            "select array[{}] as key, {} as hash from {} t where {condition}",
            key_texts(table),
            row_hash(table),
            table.name.sql(),
        );
        rows.extend(fetch(connection, statement).await?.into_iter().map(|Read { key, hash }| (key, hash)));
    }
    Ok(rows)
}
