//! Chunks of a table, and their hashes.

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::super::relations::Table;
use crate::names::{quote_ident, quote_literal};

/// Rows between two keys; all of them for a table without a key.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// A condition on the table `t`.
    pub condition: String,
}

/// Count and sum of the hashes: the same rows in any order give the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Rows.
    pub rows: i64,
    hash: String,
}

/// The 64-bit hash of a whole row of `t`. Postgres keeps its hash functions as they are over versions, since hash partitions
/// rely on them; taking them by type and not of the row's text is four times as fast.
pub fn row_hash(table: &Table) -> String {
    format!("hash_record_extended(row({}), 0)", table.hashed.join(", "))
}

impl Chunk {
    /// Hashes the chunk on one side.
    pub async fn sum(&self, connection: &mut PgConnection, table: &Table) -> Result<Sum> {
        let statement = format!(
            "select count(*), coalesce(sum({}), 0)::text from {} t where {}",
            row_hash(table),
            table.name.sql(),
            self.condition
        );
        let row = sqlx::query(AssertSqlSafe(statement)).fetch_one(connection).await?;
        Ok(Sum { rows: row.try_get(0)?, hash: row.try_get(1)? })
    }
}

/// The chunks of a table, one after the other.
pub struct Chunks<'a> {
    table: &'a Table,
    size: u32,
    after: Option<String>,
    done: bool,
}

impl<'a> Chunks<'a> {
    pub fn new(table: &'a Table, size: u32) -> Self {
        Self { table, size: size.max(1), after: None, done: false }
    }

    /// The next one; its borders are looked for on the side where the tables live. The first and the last are open, so that
    /// rows which only the other side has are in one as well.
    pub async fn next(&mut self, connection: &mut PgConnection) -> Result<Option<Chunk>> {
        if self.done {
            return Ok(None);
        }
        let after = self.after.take();
        let border = if self.table.key.is_empty() { None } else { self.border(connection, after.as_deref()).await? };
        let key = key_row(self.table);
        let mut conditions = Vec::new();
        conditions.extend(after.map(|after| format!("{key} > {after}")));
        conditions.extend(border.as_ref().map(|border| format!("{key} <= {border}")));
        self.done = border.is_none();
        self.after = border;
        let condition = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" and ") };
        Ok(Some(Chunk { condition }))
    }

    /// The key of the last row of a chunk that begins after another.
    async fn border(&self, connection: &mut PgConnection, after: Option<&str>) -> Result<Option<String>> {
        let key = key_row(self.table);
        let columns: Vec<String> = self.table.key.iter().map(|(name, _)| format!("t.{}", quote_ident(name))).collect();
        let statement = format!(
            "select array[{}] from {} t where {} order by {} offset {} limit 1",
            columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", "),
            self.table.name.sql(),
            after.map_or("true".to_owned(), |after| format!("{key} > {after}")),
            columns.join(", "),
            self.size - 1
        );
        let found: Option<Vec<String>> = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_optional(connection).await?;
        Ok(found.map(|values| key_literal(self.table, &values)))
    }
}

/// The key of `t` as a row.
pub fn key_row(table: &Table) -> String {
    let columns: Vec<String> = table.key.iter().map(|(name, _)| format!("t.{}", quote_ident(name))).collect();
    if columns.len() == 1 { columns[0].clone() } else { format!("({})", columns.join(", ")) }
}

/// A key's values as a row for a statement.
pub fn key_literal(table: &Table, values: &[String]) -> String {
    let values: Vec<String> =
        values.iter().zip(&table.key).map(|(value, (_, kind))| format!("{}::{kind}", quote_literal(value))).collect();
    if values.len() == 1 { values[0].clone() } else { format!("({})", values.join(", ")) }
}
