//! Chunks of a table with a key, and their hashes. Keys are compared as the key's index compares them.

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use super::super::relations::Table;
use crate::database::{fetch, fetch_value};
use crate::names::quote_literal;

/// The rows between two keys.
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
            table.rows(),
            self.condition
        );
        Ok(fetch(connection, statement).await?.pop().unwrap_or_default())
    }
}

/// The chunks of a table, one after the other.
pub struct Chunks<'a> {
    /// The table.
    pub table: &'a Table,
    size: u32,
    after: Option<Vec<String>>,
    done: bool,
}

impl<'a> Chunks<'a> {
    pub fn new(table: &'a Table, size: u32) -> Self {
        Self { table, size: size.max(1), after: None, done: false }
    }

    /// Whether the last chunk was returned.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next chunk. Its borders come from the side where the tables live. The first and the last chunk have no outer
    /// border, so they include rows that only the other side has.
    pub async fn next(&mut self, connection: &mut PgConnection) -> Result<Option<Chunk>> {
        if self.done {
            return Ok(None);
        }
        let after = self.after.take().map(|values| is_after(self.table, &values));
        let border = self.border(connection, after.as_deref()).await?;
        let mut conditions: Vec<String> = after.into_iter().collect();
        conditions.extend(border.as_ref().map(|values| is_at_most(self.table, values)));
        self.done = border.is_none();
        self.after = border;
        let condition = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" and ") };
        Ok(Some(Chunk { condition }))
    }

    /// The key of the last row of the chunk that begins behind the condition `after`.
    async fn border(&self, connection: &mut PgConnection, after: Option<&str>) -> Result<Option<Vec<String>>> {
        let columns = &self.table.key_columns;
        let order = columns.iter().zip(&self.table.key_less).map(|(column, less)| format!("{column} using {less}"));
        let statement = format!(
            "select array[{}] from {} t where {} order by {} offset {} limit 1",
            key_texts(self.table),
            self.table.rows(),
            after.unwrap_or("true"),
            order.collect::<Vec<_>>().join(", "),
            self.size - 1
        );
        Ok(fetch_value(connection, statement).await?)
    }
}

/// The columns of the key of `t` as texts.
pub fn key_texts(table: &Table) -> String {
    table.key_columns.iter().map(|column| format!("({column})::text")).collect::<Vec<_>>().join(", ")
}

/// The values of a key as a row, for people and for statements.
pub fn key_literal(table: &Table, values: &[String]) -> String {
    row(literals(table, values))
}

/// The condition that the key of `t` is one of these.
pub fn is_one_of(table: &Table, keys: &[Vec<String>]) -> String {
    if let ([column], [equal]) = (&table.key_columns[..], &table.key_equal[..]) {
        let literals: Vec<String> = keys.iter().flat_map(|values| literals(table, values)).collect();
        return format!("{column} {equal} any (array[{}])", literals.join(", "));
    }
    let equal = |values: &Vec<String>| {
        let pairs = table.key_columns.iter().zip(&table.key_equal).zip(literals(table, values));
        let pairs: Vec<String> = pairs.map(|((column, equal), value)| format!("{column} {equal} {value}")).collect();
        format!("({})", pairs.join(" and "))
    };
    format!("({})", keys.iter().map(equal).collect::<Vec<_>>().join(" or "))
}

/// The condition that the key of `t` comes after this one.
fn is_after(table: &Table, values: &[String]) -> String {
    let (columns, values) = (&table.key_columns, literals(table, values));
    if is_uniform(&table.key_greater) {
        return format!("{} {} {}", row(columns.clone()), table.key_greater[0], row(values));
    }
    // A row is compared by one operator, so columns whose operators differ are compared one by one.
    let mut condition = String::new();
    for (at, (column, value)) in columns.iter().zip(&values).enumerate().rev() {
        let (greater, equal) = (&table.key_greater[at], &table.key_equal[at]);
        let rest = if condition.is_empty() { condition } else { format!(" or ({column} {equal} {value} and {condition})") };
        condition = format!("({column} {greater} {value}{rest})");
    }
    // It follows from the rest, and lets Postgres begin in the index.
    format!("not {} {} {} and {condition}", columns[0], table.key_less[0], values[0])
}

/// The condition that the key of `t` is at most this one.
fn is_at_most(table: &Table, values: &[String]) -> String {
    if is_uniform(&table.key_at_most) {
        return format!("{} {} {}", row(table.key_columns.clone()), table.key_at_most[0], row(literals(table, values)));
    }
    format!("not ({})", is_after(table, values))
}

fn is_uniform(operators: &[String]) -> bool {
    operators.iter().all(|operator| *operator == operators[0])
}

fn literals(table: &Table, values: &[String]) -> Vec<String> {
    values.iter().zip(&table.key_types).map(|(value, kind)| format!("{}::{kind}", quote_literal(value))).collect()
}

fn row(mut values: Vec<String>) -> String {
    if values.len() == 1 { values.remove(0) } else { format!("({})", values.join(", ")) }
}
