//! Writes made of real rows with new keys: one insert, one update and one delete for each table. A proof rolls them back; a
//! load may commit them.

pub(super) mod trial;
mod values;

use anyhow::Result;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row, ValueRef};

use super::session::Mode;
use super::tables::{self, Column, Table, names};
use crate::moving::{Move, Side};
use crate::names::{Qualified, quote_literal};

/// How a table takes another row like one that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With new values in its unique columns.
    Renew,
    /// In the place of the row: no column can be given a new value, as in a table of pairs of keys.
    Replace,
}

/// The writes of one table.
#[derive(Debug, Clone)]
pub struct Change {
    table: Table,
    /// The values of a real row, in the order of the columns, as text. `None` is null.
    row: Vec<Option<String>>,
    /// The columns that get new values.
    renewed: Vec<String>,
    way: Way,
}

/// The values of a key, as text.
type Key = Vec<Option<String>>;

/// The writes of each table that has a row, and the tables that have none. The rows are read on this side, and so are the
/// rights of the application's role, which the writes keep to.
pub async fn read(the_move: &mut Move, side: Side) -> Result<(Vec<Change>, Vec<Qualified>)> {
    let (mut session, _) = super::open(the_move, side, &[], Mode::ReadOnly).await?;
    let tables = tables::read(&mut session.connection, &the_move.owner.tables).await?;
    session.close().await?;
    let connection = &mut the_move.database(side).connection;
    let (mut changes, mut empty) = (Vec::new(), Vec::new());
    for table in tables {
        // An operator reads the columns as they are stored, so no code of the application runs.
        let rows = sqlx::raw_sql(AssertSqlSafe(reading(&table))).fetch_all(&mut *connection).await?;
        match rows.first() {
            Some(row) => changes.push(Change::of(table, row)?),
            None => empty.push(table.name),
        }
    }
    Ok((changes, empty))
}

impl Change {
    fn of(table: Table, row: &PgRow) -> Result<Self, sqlx::Error> {
        let mut values = read_texts(row)?.into_iter();
        let row = table.columns.iter().map(|column| if column.is_computed { None } else { values.next().flatten() });
        let mut change = Self { row: row.collect(), renewed: Vec::new(), way: Way::Renew, table };
        let mut renewed = Vec::new();
        for unique in change.table.unique.iter() {
            let columns = || change.table.columns.iter().filter(|column| unique.contains(&column.name));
            let is_new = |column: &Column| column.is_fresh || change.value(column).is_none();
            let may_be_new = |column: &&Column| {
                let value = change.value(column).and_then(|value| values::renew(column, value));
                column.can_insert && !column.is_bound && !column.is_computed && value.is_some()
            };
            if !columns().any(is_new) {
                match columns().find(may_be_new) {
                    Some(column) => renewed.push(column.name.clone()),
                    None => change.way = Way::Replace,
                }
            }
        }
        if change.table.excludes {
            change.way = Way::Replace;
        }
        change.renewed = renewed;
        Ok(change)
    }

    /// The table.
    pub fn table(&self) -> &Qualified {
        &self.table.name
    }

    /// Does one round of work, each statement on its own: inserts a row, updates it, and deletes it unless it is to be kept.
    /// A table that takes no further row gets an update of a row that it has.
    ///
    /// # Errors
    /// That of the statement that failed.
    pub async fn run(&self, connection: &mut PgConnection, keep: bool) -> Result<(), sqlx::Error> {
        let mut key = self.own_key();
        if self.way == Way::Renew
            && let Some(insert) = self.insert()
        {
            let rows = sqlx::raw_sql(AssertSqlSafe(insert)).fetch_all(&mut *connection).await?;
            key = rows.first().map(read_texts).transpose()?.unwrap_or_default();
            if !keep && let Some(delete) = self.delete(&key) {
                if let Some(update) = self.update(&key) {
                    sqlx::raw_sql(AssertSqlSafe(update)).execute(&mut *connection).await?;
                }
                return sqlx::raw_sql(AssertSqlSafe(delete)).execute(connection).await.map(drop);
            }
        }
        match self.update(&key) {
            Some(update) => sqlx::raw_sql(AssertSqlSafe(update)).execute(connection).await.map(drop),
            None => Ok(()),
        }
    }

    /// Inserts a row like the real one. `None` if the role may not.
    fn insert(&self) -> Option<String> {
        let may_insert = self.table.columns.iter().any(|column| column.can_insert);
        let takes = |column: &&Column| !(column.is_fresh && self.way == Way::Renew);
        let columns: Vec<_> = self.table.inserted().into_iter().filter(takes).collect();
        let table = self.table.name.sql();
        let values: Vec<String> = columns.iter().map(|column| self.literal(column)).collect();
        let values = match columns.is_empty() {
            true => "default values".to_owned(),
            false => format!("({}) values ({})", names(&columns), values.join(", ")),
        };
        let key = self.table.key();
        let returning = match (key.is_empty(), self.reads_all()) {
            (false, _) => format!(" returning {}", texts(&key)),
            (true, true) if self.has_no_key() => " returning tableoid, ctid".to_owned(),
            _ => String::new(),
        };
        may_insert.then(|| format!("insert into {table} {values}{returning}"))
    }

    /// Updates the row of this key: other values in unique columns, the same in all others. `None` if the role may not.
    fn update(&self, key: &Key) -> Option<String> {
        let changes = |column: &&&Column| !(column.is_key || column.is_fresh && self.is_unique(column));
        let updated = self.table.updated();
        let mut columns: Vec<_> = updated.iter().filter(changes).copied().collect();
        if columns.is_empty() {
            columns = updated.into_iter().filter(|column| column.can_select).take(1).collect();
            return self.update_of(&columns, key, |column| column.sql());
        }
        self.update_of(&columns, key, |column| self.literal(column))
    }

    fn update_of(&self, columns: &[&Column], key: &Key, value: impl Fn(&Column) -> String) -> Option<String> {
        let sets: Vec<String> = columns.iter().map(|column| format!("{} = {}", column.sql(), value(column))).collect();
        let condition = self.condition(key)?;
        (!sets.is_empty()).then(|| format!("update {} set {} where {condition}", self.table.name.sql(), sets.join(", ")))
    }

    /// Deletes the row of this key. `None` if the role may not.
    fn delete(&self, key: &Key) -> Option<String> {
        let condition = self.condition(key)?;
        self.table.can_delete.then(|| format!("delete from {} where {condition}", self.table.name.sql()))
    }

    /// Exactly one row, or `None`: no statement may be without a condition.
    fn condition(&self, key: &Key) -> Option<String> {
        let columns: Vec<String> = match self.has_no_key() {
            true => vec!["tableoid".to_owned(), "ctid".to_owned()],
            false => self.table.key().iter().map(|column| column.sql()).collect(),
        };
        let equal = columns
            .iter()
            .zip(key)
            .map(|(column, value)| value.as_ref().map(|value| format!("{column} = {}", quote_literal(value))));
        let equal: Option<Vec<String>> = equal.collect();
        equal.filter(|equal| !equal.is_empty() && equal.len() == columns.len()).map(|equal| equal.join(" and "))
    }

    /// The key of the real row. Empty if the table has none, or the role may not read it.
    fn own_key(&self) -> Key {
        self.table.key().into_iter().map(|column| self.value(column).map(str::to_owned)).collect()
    }

    fn has_no_key(&self) -> bool {
        !self.table.columns.iter().any(|column| column.is_key)
    }

    fn reads_all(&self) -> bool {
        self.table.columns.iter().all(|column| column.can_select)
    }

    fn is_unique(&self, column: &Column) -> bool {
        self.table.unique.iter().any(|unique| unique.contains(&column.name))
    }

    fn value(&self, column: &Column) -> Option<&str> {
        let at = self.table.columns.iter().position(|other| other.name == column.name)?;
        self.row[at].as_deref()
    }

    fn literal(&self, column: &Column) -> String {
        let value = self.value(column);
        let renewed = value.filter(|_| self.renewed.contains(&column.name)).and_then(|value| values::renew(column, value));
        renewed.as_deref().or(value).map_or("null".to_owned(), quote_literal)
    }
}

/// The values of a row that came as text.
fn read_texts(row: &PgRow) -> Result<Vec<Option<String>>, sqlx::Error> {
    let text = |at: usize| {
        let value = row.try_get_raw(at)?;
        Ok(if value.is_null() { None } else { value.as_str().ok().map(str::to_owned) })
    };
    (0..row.len()).map(text).collect()
}

/// Reads the row with the highest key.
fn reading(table: &Table) -> String {
    let columns: Vec<&Column> = table.columns.iter().filter(|column| !column.is_computed).collect();
    let name = table.name.sql();
    // With the table's name it cannot mean a column of the result.
    let key = table.columns.iter().filter(|column| column.is_key);
    let order: Vec<String> = key.map(|column| format!("{name}.{} desc", column.sql())).collect();
    let order = if order.is_empty() { String::new() } else { format!(" order by {}", order.join(", ")) };
    format!("select {} from {name}{order} limit 1", texts(&columns))
}

/// The columns as texts: the driver does not know every type, and a cast might call a function of the application.
fn texts(columns: &[&Column]) -> String {
    let text = |column: &&Column| {
        let name = column.sql();
        format!("case pg_catalog.num_nonnulls({name}) when 1 then pg_catalog.format('%s', {name}) end")
    };
    columns.iter().map(text).collect::<Vec<_>>().join(", ")
}
