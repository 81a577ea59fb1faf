//! Ends a borrowing with the SQL files that the manifest names for it, and undoes that.
//!
//! A borrowing is replaced when the audit no longer finds its coupling in the catalog. That is read from the database before
//! anything runs, and again before the commit.

mod compare;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, PgConnection, query, query_scalar};

use crate::audit::{Kind, coupling};
use crate::database::execute;
use crate::exit::{Refused, require};
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

/// What runs while the object is locked.
struct Script {
    switch: Switch,
    statements: String,
    /// A statement, and the transaction from which on it copies.
    copy: Option<(String, String)>,
}

/// What a script does to the coupling.
#[derive(PartialEq, Eq)]
enum Switch {
    End,
    Restore,
}

/// Puts the replacement in place if all requirements hold and all rows agree; returns false if it is there already. What
/// commits after the comparison is copied while the object is locked, so that no reader sees older rows than before.
///
/// # Errors
/// [`Refused`], with nothing changed; or the error of a file or the database.
pub async fn replace(
    connection: &mut PgConnection,
    manifest: &Manifest,
    borrowing: &Borrowing,
    patience: Duration,
    locking: Locking,
) -> Result<bool> {
    if !couples(connection, manifest, borrowing).await? {
        return Ok(false);
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
            "{what}: {different} of {rows} rows still differ after {}; nothing was changed. \
             `splitctl compare {what}` lists them",
            humantime::format_duration(patience)
        );
    }
    let script = Script { switch: Switch::End, statements, copy: copy.map(|copy| (copy, horizon)) };
    run(connection, manifest, borrowing, &script, locking).await?;
    Ok(true)
}

/// Takes the replacement away again; returns false if it is not in place.
///
/// # Errors
/// As [`replace`].
pub async fn restore(
    connection: &mut PgConnection,
    manifest: &Manifest,
    borrowing: &Borrowing,
    locking: Locking,
) -> Result<bool> {
    if couples(connection, manifest, borrowing).await? {
        return Ok(false);
    }
    let statements = read(borrowing, "restore", borrowing.restore.as_deref())?;
    let script = Script { switch: Switch::Restore, statements, copy: None };
    run(connection, manifest, borrowing, &script, locking).await?;
    Ok(true)
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

/// Runs the script in one transaction, which commits only if the coupling is then as it should be. The audit's queries take
/// some milliseconds while the object is locked.
async fn run(
    connection: &mut PgConnection,
    manifest: &Manifest,
    borrowing: &Borrowing,
    script: &Script,
    locking: Locking,
) -> Result<()> {
    let (what, Script { switch, statements, copy }) = (&borrowing.what, script);
    let act = async |connection: &mut PgConnection| {
        execute(connection, BEGIN).await?;
        execute(connection, statements).await?;
        if let Some((copy, horizon)) = copy {
            query(AssertSqlSafe(copy.as_str())).persistent(false).bind(horizon).execute(&mut *connection).await?;
        }
        execute(connection, END_OF_FILE).await?;
        let left = coupling(connection, manifest, borrowing).await;
        let is_right = left.as_ref().is_ok_and(|left| left.is_none() == (*switch == Switch::End));
        execute(connection, if is_right { "commit" } else { "rollback" }).await?;
        Ok(left)
    };
    let left = patiently(connection, &relations(what), locking, act).await.with_context(|| what.clone())??;
    let reason = match (switch, left) {
        (Switch::End, Some(left)) => format!("the file of `replace` leaves a coupling: {}", left.detail),
        (Switch::Restore, None) => "the audit finds no coupling after the file of `restore`".to_owned(),
        _ => return Ok(()),
    };
    Err(Refused(format!("{what}: nothing was changed, because {reason}")).into())
}

/// The relations that may be locked: the object itself, or the table that it is a part of (`orders.orders_user_id_fkey`).
fn relations(what: &str) -> Vec<Qualified> {
    let table = what.rsplit_once('.').map(|(table, _)| table);
    [Some(what), table].into_iter().flatten().filter_map(|name| name.parse().ok()).collect()
}

/// The text of a file that the borrowing names.
fn read(borrowing: &Borrowing, key: &str, path: Option<&Path>) -> Result<String> {
    let path = path.with_context(|| format!("the borrowing of {} names no `{key}`", borrowing.what))?;
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
