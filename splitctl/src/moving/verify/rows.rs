//! Rows one by one.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::super::marker;
use super::super::relations::Table;
use super::Rows;
use super::chunk::{Chunk, key_literal, key_row, row_hash};
use crate::exit::require;
use crate::names::quote_ident;

/// How long the stream may take for the marker.
const LAG: std::time::Duration = std::time::Duration::from_secs(60);
/// Keys asked for by one statement.
const BATCH: usize = 1000;

/// What is to be looked at.
pub enum Suspects {
    /// All rows of a chunk.
    Chunk(Chunk),
    /// Rows with these keys.
    Rows(Vec<String>),
}

/// What was found of them; those that are equal are in neither.
pub struct Found {
    /// Stood still and are not the same: the key, and how they differ.
    pub proven: Vec<(String, &'static str)>,
    /// Changed meanwhile.
    pub moving: Vec<String>,
}

/// Reads this side, waits until all of that must have arrived, reads the other side, and this one again.
pub async fn compare(
    from: &mut PgConnection,
    to: &mut PgConnection,
    owner: &str,
    table: &Table,
    suspects: &Suspects,
) -> Result<Found> {
    let before = read(from, table, suspects).await?;
    let token = marker::set(from, owner).await?;
    require!(
        marker::arrives(to, owner, token, LAG).await?,
        "the stream is more than {LAG:?} behind: wait, and repeat the command"
    );
    let there = read(to, table, suspects).await?;
    let mut keys: BTreeSet<String> = before.keys().chain(there.keys()).cloned().collect();
    keys.retain(|key| before.get(key) != there.get(key));
    let mut found = Found { proven: Vec::new(), moving: Vec::new() };
    if keys.is_empty() {
        return Ok(found);
    }
    // By the keys themselves: text that both sides sort otherwise lies in another chunk there.
    let differing = Suspects::Rows(keys.iter().cloned().collect());
    let (after, there) = (read(from, table, &differing).await?, read(to, table, &differing).await?);
    for key in keys {
        let (was, is, other) = (before.get(&key), after.get(&key), there.get(&key));
        match (is, other) {
            (is, other) if is == other => {}
            _ if was != is => found.moving.push(key),
            (Some(_), None) => found.proven.push((key, "missing")),
            (None, Some(_)) => found.proven.push((key, "extra")),
            _ => found.proven.push((key, "different")),
        }
    }
    Ok(found)
}

/// The rows' counts and hashes by key. A table without a key has its rows' hashes for keys.
async fn read(connection: &mut PgConnection, table: &Table, suspects: &Suspects) -> Result<Rows> {
    let columns = match &table.key[..] {
        [] => vec![format!("{}::text", row_hash(table))],
        key => key.iter().map(|(name, _)| format!("t.{}::text", quote_ident(name))).collect(),
    };
    let conditions: Vec<String> = match suspects {
        Suspects::Chunk(chunk) => vec![chunk.condition.clone()],
        Suspects::Rows(keys) => keys.chunks(BATCH).map(|keys| condition(table, keys)).collect(),
    };
    let mut rows = Rows::new();
    for condition in conditions {
        let statement = format!(
            "select array[{}], count(*), sum({})::text from {} t where {condition} group by 1",
            columns.join(", "),
            row_hash(table),
            table.name.sql(),
        );
        for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(&mut *connection).await? {
            let values: Vec<String> = row.try_get(0)?;
            let key = if table.key.is_empty() { values.concat() } else { key_literal(table, &values) };
            rows.insert(key, (row.try_get(1)?, row.try_get(2)?));
        }
    }
    Ok(rows)
}

/// Finds rows by their keys, with the key's index.
fn condition(table: &Table, keys: &[String]) -> String {
    if table.key.is_empty() {
        return format!("{} in ({})", row_hash(table), keys.join(", "));
    }
    format!("{} in ({})", key_row(table), keys.join(", "))
}
