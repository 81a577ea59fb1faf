//! Ends a borrowing with the SQL files that the manifest names for it, and undoes that.
//!
//! A borrowing is replaced when the audit no longer finds its coupling in the catalog. The database alone decides that: it is
//! checked before anything runs, and again before the commit.

mod compare;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, query, query_scalar};

use crate::audit::{Kind, coupling};
use crate::database::execute;
use crate::exit::require;
use crate::manifest::{Borrowing, Manifest};
use crate::moving::{Locking, patiently};
use crate::names::Qualified;
pub use compare::{Comparison, Row, compare};

/// Files find names as psql does, and not as the rest of this program.
const BEGIN: &str = "begin; set local search_path to default";
const BEGIN_READ_ONLY: &str = "begin read only; set local search_path to default";
/// The search path of the audit's queries.
const END_OF_FILE: &str = "set local search_path = pg_catalog, pg_temp";
/// Every transaction below this one has ended.
const HORIZON: &str = "select pg_snapshot_xmin(pg_current_snapshot())::text";

/// What a command left.
#[derive(Debug, Serialize)]
pub struct State<'a> {
    /// The borrowed object.
    pub what: &'a str,
    /// The owner that borrows it.
    pub who: &'a str,
    /// Whether the replacement is in its place.
    pub replaced: bool,
    /// Whether this run put it there, or took it away.
    pub changed: bool,
}

/// What a switch does to the coupling.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Switch {
    End,
    Restore,
}

/// Puts the replacement in place, if all requirements hold and all rows agree. What commits after the comparison is copied
/// while the object is locked, so no reader is taken back in time.
///
/// # Errors
/// [`Refused`](crate::exit::Refused), with nothing changed; or what failed.
pub async fn replace<'a>(
    connection: &mut PgConnection,
    manifest: &Manifest,
    borrowing: &'a Borrowing,
    patience: Duration,
    locking: Locking,
) -> Result<State<'a>> {
    if !couples(connection, manifest, borrowing).await? {
        return Ok(State::of(borrowing, true, false));
    }
    let what = &borrowing.what;
    let statements = read(borrowing, "replace", borrowing.replace.as_deref())?;
    let copy = borrowing.copy.as_deref().map(|path| read(borrowing, "copy", Some(path))).transpose()?;
    check_requirements(connection, borrowing).await?;
    let horizon: String = query_scalar(HORIZON).fetch_one(&mut *connection).await?;
    if borrowing.compare.is_some() {
        let Comparison { rows, different, .. } = compare(connection, borrowing, patience).await?;
        require!(
            different == 0,
            "{what}: {different} of {rows} rows still differ after {}; nothing was changed. `splitctl compare {what}` lists them",
            humantime::format_duration(patience)
        );
    }
    let copy = copy.as_deref().map(|copy| (copy, horizon.as_str()));
    switch(connection, manifest, borrowing, Switch::End, &statements, copy, locking).await?;
    Ok(State::of(borrowing, true, true))
}

/// Takes the replacement away again.
///
/// # Errors
/// As [`replace`].
pub async fn restore<'a>(
    connection: &mut PgConnection,
    manifest: &Manifest,
    borrowing: &'a Borrowing,
    locking: Locking,
) -> Result<State<'a>> {
    if couples(connection, manifest, borrowing).await? {
        return Ok(State::of(borrowing, false, false));
    }
    let statements = read(borrowing, "restore", borrowing.restore.as_deref())?;
    switch(connection, manifest, borrowing, Switch::Restore, &statements, None, locking).await?;
    Ok(State::of(borrowing, false, true))
}

impl<'a> State<'a> {
    fn of(borrowing: &'a Borrowing, replaced: bool, changed: bool) -> Self {
        Self { what: &borrowing.what, who: &borrowing.who, replaced, changed }
    }
}

/// Whether the catalog shows the coupling.
async fn couples(connection: &mut PgConnection, manifest: &Manifest, borrowing: &Borrowing) -> Result<bool> {
    let found = coupling(connection, manifest, borrowing).await?;
    let is_missing = found.as_ref().is_some_and(|finding| finding.kind == Kind::Missing);
    require!(!is_missing, "{}: does not exist in this database; nothing was changed", borrowing.what);
    Ok(found.is_some())
}

async fn check_requirements(connection: &mut PgConnection, borrowing: &Borrowing) -> Result<()> {
    let Some(path) = &borrowing.require else { return Ok(()) };
    let statement = read(borrowing, "require", Some(path))?;
    execute(connection, BEGIN_READ_ONLY).await?;
    let messages = query_scalar(AssertSqlSafe(statement)).persistent(false).fetch_all(&mut *connection).await;
    let messages: Vec<String> = messages.with_context(|| path.display().to_string())?;
    execute(connection, "rollback").await?;
    require!(messages.is_empty(), "{}: nothing was changed.\n{}", borrowing.what, messages.join("\n"));
    Ok(())
}

/// Runs the statements in one transaction, which commits only if the coupling is then what it should be.
async fn switch(
    connection: &mut PgConnection,
    manifest: &Manifest,
    borrowing: &Borrowing,
    switch: Switch,
    statements: &str,
    copy: Option<(&str, &str)>,
    locking: Locking,
) -> Result<()> {
    let what = &borrowing.what;
    let act = async |connection: &mut PgConnection| {
        execute(connection, BEGIN).await?;
        execute(connection, statements).await?;
        if let Some((copy, horizon)) = copy {
            query(AssertSqlSafe(copy.to_owned())).persistent(false).bind(horizon).execute(&mut *connection).await?;
        }
        execute(connection, END_OF_FILE).await?;
        let left = coupling(connection, manifest, borrowing).await;
        let is_right = left.as_ref().is_ok_and(|left| left.is_none() == (switch == Switch::End));
        execute(connection, if is_right { "commit" } else { "rollback" }).await?;
        Ok(left)
    };
    let left = patiently(connection, &relations(what), locking, act).await.with_context(|| what.clone())??;
    match (switch, left) {
        (Switch::End, Some(left)) => {
            require!(false, "{what}: nothing was changed, because the file of `replace` leaves a coupling: {}", left.detail)
        }
        (Switch::Restore, None) => {
            require!(false, "{what}: nothing was changed, because the audit finds no coupling after the file of `restore`")
        }
        _ => {}
    }
    Ok(())
}

/// The relations that may be locked: the object itself, or the table that it is a part of (`orders.orders_user_id_fkey`).
fn relations(what: &str) -> Vec<Qualified> {
    let table = what.rsplit_once('.').map(|(table, _)| table);
    [Some(what), table].into_iter().flatten().filter_map(|name| name.parse().ok()).collect()
}

/// The text of a file that the borrowing names.
fn read(borrowing: &Borrowing, key: &str, path: Option<&Path>) -> Result<String> {
    let path: &PathBuf = &path.with_context(|| format!("the borrowing of {} names no `{key}`", borrowing.what))?.into();
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
