//! Compares rows one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use super::super::marker;
use super::super::relations::Table;
use super::chunk::{Chunk, key_columns, key_literal, key_row, row_hash};
use crate::database::fetch;
use crate::exit::require;

/// How long the stream may take for the marker.
const LAG: Duration = Duration::from_secs(60);
/// The number of keys in one statement.
const BATCH: usize = 1000;

/// The rows to compare.
pub enum Suspects {
    /// Every row of a chunk.
    Chunk(Chunk),
    /// The rows with these keys.
    Rows(Vec<String>),
}

/// The rows that are not equal.
pub struct Found {
    /// The keys of rows that did not change meanwhile and differ, and how they differ.
    pub proven: Vec<(String, &'static str)>,
    /// The keys of rows that changed meanwhile.
    pub changed: Vec<String>,
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
    let token = marker::set(from, owner_name).await?;
    require!(
        marker::wait(to, owner_name, token, LAG).await?,
        "{owner_name}: the stream is more than {LAG:?} behind: wait, and repeat the command"
    );
    let there = read(to, table, suspects).await?;
    let mut keys: BTreeSet<String> = before.keys().chain(there.keys()).cloned().collect();
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
        match (is, other) {
            (is, other) if is == other => {}
            _ if was != is => found.changed.push(key),
            (Some(_), None) => found.proven.push((key, "missing")),
            (None, Some(_)) => found.proven.push((key, "extra")),
            _ => found.proven.push((key, "different")),
        }
    }
    Ok(found)
}

/// Count and hash of rows, by their key or their own hash.
type Rows = BTreeMap<String, (i64, String)>;

#[derive(FromRow)]
struct Read {
    key: Vec<String>,
    count: i64,
    hash: String,
}

/// Reads the rows. In a table without a key, the hash of a row is its key.
async fn read(connection: &mut PgConnection, table: &Table, suspects: &Suspects) -> Result<Rows> {
    let hash = row_hash(table);
    let columns = if table.key.is_empty() { vec![hash.clone()] } else { key_columns(table) };
    let columns: Vec<String> = columns.iter().map(|column| format!("{column}::text")).collect();
    let conditions: Vec<String> = match suspects {
        Suspects::Chunk(chunk) => vec![chunk.condition.clone()],
        Suspects::Rows(keys) => keys.chunks(BATCH).map(|keys| condition(table, keys)).collect(),
    };
    let mut rows = Rows::new();
    for condition in conditions {
        let statement = format!(
            "select array[{}] as key, count(*) as count, sum({hash})::text as hash from {} t where {condition} group by 1",
            columns.join(", "),
            table.name.sql(),
        );
        for Read { key, count, hash } in fetch(connection, statement).await? {
            let key = if table.key.is_empty() { key.concat() } else { key_literal(table, &key) };
            rows.insert(key, (count, hash));
        }
    }
    Ok(rows)
}

/// Finds rows by their keys, so that Postgres uses the index of the key.
fn condition(table: &Table, keys: &[String]) -> String {
    let row = if table.key.is_empty() { row_hash(table) } else { key_row(table) };
    format!("{row} in ({})", keys.join(", "))
}
