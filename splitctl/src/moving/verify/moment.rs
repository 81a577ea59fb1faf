//! A moment at which both sides can be compared: a snapshot of each, and if need be without writes in between. Sessions of
//! workers join it, so all of them read the same rows.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use super::sides::{Pair, Sides};
use super::wait_for_marker;
use crate::database::{execute, fetch_value};
use crate::exit::Refused;
use crate::moving::fence::{self, Locking};
use crate::moving::marker;
use crate::moving::relations::Table;
use crate::names::quote_literal;

/// How long writers may wait for the marker.
const PAUSE: Duration = Duration::from_millis(500);
/// How the lock is tried.
const LOCKING: Locking = Locking { lock_timeout: Duration::from_millis(200), lock_attempts: 20 };

/// A snapshot of each side. The other side's has everything that this side's has, and little more.
pub struct Moment {
    /// The sessions that hold the snapshots.
    pub holders: Pair,
    /// The snapshots' names: this side's, and the other side's.
    names: (String, String),
}

impl Moment {
    pub async fn take(sides: &Sides<'_>, pair: &mut Pair) -> Result<Self> {
        let mut holders = sides.connect().await?;
        let here = take_snapshot(&mut holders.from).await?;
        wait_for_marker(&mut pair.from, &mut pair.to, sides.owner_name).await?;
        let there = take_snapshot(&mut holders.to).await?;
        Ok(Self { holders, names: (here, there) })
    }

    /// Both snapshots have the same rows of the table: writers wait while they are taken. Returns `None` if the table cannot
    /// be locked, or if the marker travels too long.
    pub async fn take_without_writes(sides: &Sides<'_>, pair: &mut Pair, table: &Table) -> Result<Option<Self>> {
        let (mut holders, mut markers) = (sides.connect().await?, sides.from.connect().await?);
        let lock = format!("begin; lock table {} in share mode", table.name.sql());
        let tables = std::slice::from_ref(&table.name);
        let locked = fence::patiently(&mut pair.from, tables, LOCKING, async |connection: &mut PgConnection| {
            execute(connection, lock.clone()).await
        });
        match locked.await {
            Err(error) if error.is::<Refused>() => return Ok(None),
            locked => locked?,
        }
        let token = marker::set(&mut markers, sides.owner_name).await?;
        let mut names = None;
        if marker::wait(&mut pair.to, sides.owner_name, token, PAUSE).await? {
            names = Some((take_snapshot(&mut holders.from).await?, take_snapshot(&mut holders.to).await?));
        }
        execute(&mut pair.from, "rollback").await?;
        Ok(names.map(|names| Self { holders, names }))
    }

    /// Has a worker's sessions read as of this moment, until [`leave`].
    pub async fn join(&self, pair: &mut Pair) -> Result<()> {
        let (here, there) = &self.names;
        let (here, there) = tokio::join!(join(&mut pair.from, here), join(&mut pair.to, there));
        here?;
        Ok(there?)
    }
}

/// Ends what [`Moment::join`] began.
pub async fn leave(pair: &mut Pair) -> Result<()> {
    execute(&mut pair.from, "rollback").await?;
    Ok(execute(&mut pair.to, "rollback").await?)
}

const BEGIN: &str = "begin isolation level repeatable read read only";

async fn take_snapshot(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    execute(connection, BEGIN).await?;
    fetch_value(connection, "select pg_export_snapshot()".to_owned()).await?.ok_or(sqlx::Error::RowNotFound)
}

async fn join(connection: &mut PgConnection, snapshot: &str) -> Result<(), sqlx::Error> {
    execute(connection, format!("{BEGIN}; set transaction snapshot {}", quote_literal(snapshot))).await
}
