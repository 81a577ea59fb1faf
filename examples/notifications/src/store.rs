//! The program's own file: how far it has read, what it has sent, and what waits or is parked.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use crate::event::Event;

pub struct Store(Connection);

impl Store {
    /// Opens the file, or creates it.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        connection.execute_batch(include_str!("sql/schema.sql"))?;
        Ok(Self(connection))
    }

    /// How far a source is read; `None` if it has not been read yet.
    pub fn place(&self, source: &str) -> Result<Option<String>> {
        Ok(self.0.query_row("select place from places where source = ?1", [source], |row| row.get(0)).optional()?)
    }

    /// Stores events and the place behind them in one transaction. An event that is there already is a repeat. One that
    /// cannot be read is parked.
    pub fn receive(&self, events: &[Event], source: &str, place: &str) -> Result<()> {
        let transaction = self.0.unchecked_transaction()?;
        for event in events {
            match event.notification() {
                None => self.0.execute(include_str!("sql/skip.sql"), [&event.r#type])?,
                Some((order, body, error)) => {
                    self.0.execute(include_str!("sql/insert.sql"), (&event.id, order, body, error))?
                }
            };
        }
        self.0.execute("insert or replace into places values (?1, ?2)", [source, place])?;
        Ok(transaction.commit()?)
    }

    /// Events left `source` before they were read. Its place is forgotten, so that reading starts at the oldest event that
    /// is still there; the ids that are kept prevent repeated notifications. This always ends in an error.
    pub fn lost(&self, source: &str, reason: &str) -> Result<()> {
        self.0.execute(include_str!("sql/skip.sql"), [format!("lost: {source}")])?;
        self.0.execute("delete from places where source like ?1 || '%'", [source])?;
        bail!("{source} has lost events that were not read, and their notifications are missing: {reason}");
    }

    /// At most `limit` notifications that are due, each of another order: id, body, and earlier attempts.
    pub fn due(&self, limit: u32) -> Result<Vec<(String, String, u32)>> {
        let mut statement = self.0.prepare(include_str!("sql/due.sql"))?;
        let rows = statement.query_map(params![Utc::now().timestamp_millis(), limit], |row| row.try_into())?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes what an attempt led to: the notification is `sent`, `waiting` for an attempt after a pause, or `parked`.
    pub fn finish(&self, id: &str, state: &str, error: Option<&str>, pause: TimeDelta) -> Result<()> {
        let due = (Utc::now() + pause).timestamp_millis();
        self.0.execute(include_str!("sql/finish.sql"), params![id, state, error, due])?;
        Ok(())
    }

    /// Makes parked notifications due again: how many.
    pub fn retry_parked(&self) -> Result<usize> {
        Ok(self.0.execute(include_str!("sql/retry.sql"), [])?)
    }
}
