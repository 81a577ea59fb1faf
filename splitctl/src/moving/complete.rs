//! The end of a move, which is the only step that cannot be undone.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sqlx::postgres::PgDatabaseError;
use sqlx::{PgConnection, query_scalar};

use super::fence::{self, Locking};
use super::journal::Step;
use super::side::Side;
use super::{Move, cleanup, crash_point, cutover, marker, relations, rights, schema, stream};
use crate::database::{execute, server_error};
use crate::exit::{Refused, require};
use crate::names::Qualified;

/// How long the last changes may take to arrive in the source.
const LAG: Duration = Duration::from_secs(30);

/// Whether the old tables must be equal to the new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// They must be.
    Required,
    /// The way back is lost, so the old tables are stale. They are dropped without a comparison.
    GivenUp,
}

/// The result of `complete`.
#[derive(Debug, Serialize)]
pub struct Completed {
    /// The owner.
    pub owner: String,
    /// The tables that were dropped from the source.
    pub dropped: Vec<Qualified>,
}

/// Drops the old tables, and everything that served the move.
///
/// # Errors
/// [`Refused`] unless the old tables are fenced, and have the same rows as the new ones or may differ.
pub async fn run(the_move: &mut Move, locking: Locking, way_back: WayBack) -> Result<Completed> {
    the_move.check_open()?;
    if the_move.state.switch.lives == Side::Target {
        cutover::undo_killed(the_move).await?;
    }
    check_switched(the_move)?;
    if the_move.state.pending != Some(Step::Complete) {
        check_fenced(the_move).await?;
        // Nothing is given up before it is known that the tables can be dropped.
        drop_old(the_move, locking, "rollback").await?;
        if way_back == WayBack::Required {
            check_equal(the_move).await?;
        }
        let detail = json!({ "tables": the_move.owner.tables, "way back given up": way_back == WayBack::GivenUp });
        the_move.journal.intend(Step::Complete, detail).await?;
    }
    crash_point("complete intended");
    stream::end_all(&mut the_move.source, &mut the_move.target, &the_move.state.names).await?;
    crash_point("streams ended");
    drop_old(the_move, locking, "commit").await?;
    crash_point("old tables dropped");
    cleanup::run(the_move, locking).await?;
    the_move.journal.record(Step::Complete, json!({})).await?;
    Ok(Completed { owner: the_move.owner_name.clone(), dropped: the_move.owner.tables.clone() })
}

fn check_switched(Move { owner_name, state, .. }: &Move) -> Result<()> {
    require!(
        state.switch.lives == Side::Target,
        "{owner_name}: the tables still live in the source: run `splitctl cutover {owner_name}`, or `splitctl abort \
         {owner_name}`"
    );
    require!(
        !matches!(state.pending, Some(Step::Cutover | Step::Rollback)),
        "{owner_name}: the last switch is not done: repeat `splitctl cutover {owner_name}`"
    );
    Ok(())
}

/// Every old table must have the fence's trigger, the fence must be closed, and nobody may have rights.
async fn check_fenced(Move { owner, owner_name, source, .. }: &mut Move) -> Result<()> {
    let marker = marker::table(owner_name);
    let passes = query_scalar("select has_table_privilege('public', $1, 'select')").bind(&marker);
    let is_open: bool = passes.fetch_one(&mut source.connection).await?;
    require!(!is_open, "{marker}: PUBLIC has been granted the right to read it, which lets writers pass: revoke it");
    let open = relations::select_lines(&mut source.connection, fence::UNFENCED, &owner.tables).await?;
    require!(open.is_empty(), "{}: the old tables are not fenced, somebody has dropped the triggers", open.join(", "));
    let rights = rights::read(&mut source.connection, owner).await?;
    require!(
        rights.revokes.is_empty(),
        "{}: these roles have been granted rights on the old tables since the cutover",
        rights.roles.join(", ")
    );
    Ok(())
}

/// The old tables must have the rows of the new ones, and no change may be on its way.
async fn check_equal(the_move: &mut Move) -> Result<()> {
    let Move { owner_name, source, target, state, .. } = the_move;
    require!(
        state.is_verified(),
        "{owner_name}: the old and the new rows have not been compared since the cutover: `splitctl verify {owner_name}`"
    );
    let token = marker::set(&mut target.connection, owner_name).await?;
    require!(
        marker::wait(&mut source.connection, owner_name, token, LAG).await?,
        "{owner_name}: the old tables are more than {LAG:?} behind the new ones: see `splitctl status {owner_name}`. If the \
         way back is lost, run `splitctl complete {owner_name} --give-up-way-back`"
    );
    Ok(())
}

/// Drops all old tables at once, and nothing that depends on them. With `end` at `rollback` it only tries.
async fn drop_old(the_move: &mut Move, locking: Locking, end: &str) -> Result<()> {
    let Move { owner, source, .. } = the_move;
    let connection = &mut source.connection;
    let old: Vec<Qualified> =
        relations::tables(connection, &owner.tables).await?.into_iter().map(|table| table.name).collect();
    if old.is_empty() {
        return Ok(());
    }
    let statement = format!("begin; {}; {end}", schema::dropping(connection, &old, &owner.views).await?);
    let dropped = fence::patiently(connection, &old, locking, async |connection: &mut PgConnection| {
        execute(connection, statement.clone()).await
    });
    dropped.await.map_err(explain)
}

/// Names the objects that depend on the old tables.
fn explain(error: anyhow::Error) -> anyhow::Error {
    match server_error(&error).and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        Some(found) if found.code() == "2BP01" => Refused(format!(
            "the old tables cannot be dropped, because these depend on them: {}. Drop them, and repeat the command",
            found.detail().unwrap_or_default()
        ))
        .into(),
        _ => error,
    }
}
