//! Chunks of a table, and their hashes.

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use super::super::relations::Table;
use crate::database::{fetch, fetch_value};
use crate::names::{quote_ident, quote_literal};

/// The rows between two keys. In a table without a key, all rows are one chunk.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// A condition on the table `t`.
    pub condition: String,
}

/// The count of the rows and the sum of their hashes. The order of the rows does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Sum {
    /// The number of rows.
    pub rows: i64,
    hash: String,
}

/// The 64-bit hash of a row of `t`. Postgres does not change its hash functions between versions, because hash partitions
/// depend on them. Hashing by type is four times as fast as hashing the text of the row.
pub fn row_hash(table: &Table) -> String {
    format!("hash_record_extended(row({}), 0)", table.hashed.join(", "))
}

impl Chunk {
    /// Hashes the chunk on one side.
    pub async fn sum(&self, connection: &mut PgConnection, table: &Table) -> Result<Sum> {
        let statement = format!(
            "select count(*) as rows, coalesce(sum({}), 0)::text as hash from {} t where {}",
            row_hash(table),
            table.name.sql(),
            self.condition
        );
        Ok(fetch(connection, statement).await?.pop().unwrap_or_default())
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

    /// The next chunk. Its borders come from the side where the tables live. The first and the last chunk have no outer
    /// border, so they include rows that only the other side has.
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

    /// The key of the last row of the chunk that begins after `after`.
    async fn border(&self, connection: &mut PgConnection, after: Option<&str>) -> Result<Option<String>> {
        let key = key_row(self.table);
        let columns = key_columns(self.table);
        let statement = format!(
            "select array[{}] from {} t where {} order by {} offset {} limit 1",
            columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", "),
            self.table.name.sql(),
            after.map_or("true".to_owned(), |after| format!("{key} > {after}")),
            columns.join(", "),
            self.size - 1
        );
        let found: Option<Vec<String>> = fetch_value(connection, statement).await?;
        Ok(found.map(|values| key_literal(self.table, &values)))
    }
}

/// The columns of the key of `t`.
pub fn key_columns(table: &Table) -> Vec<String> {
    table.key.iter().map(|name| format!("t.{}", quote_ident(name))).collect()
}

/// The key of `t` as a row.
pub fn key_row(table: &Table) -> String {
    row(key_columns(table))
}

/// The values of a key as a row for a statement.
pub fn key_literal(table: &Table, values: &[String]) -> String {
    let typed = values.iter().zip(&table.key_types);
    row(typed.map(|(value, kind)| format!("{}::{kind}", quote_literal(value))).collect())
}

fn row(mut values: Vec<String>) -> String {
    if values.len() == 1 { values.remove(0) } else { format!("({})", values.join(", ")) }
}
