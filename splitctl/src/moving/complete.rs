//! The end of a move: the only step without a way back.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row};

use super::fence::{self, Locking};
use super::journal::append;
use super::relations;
use super::side::Place;
use super::{Move, copy, crash_point, marker, stream};
use crate::database::{execute, place};
use crate::exit::require;
use crate::names::Qualified;

/// How long the last changes may take to come back.
const LAG: Duration = Duration::from_secs(30);

/// What is over.
#[derive(Debug, Serialize)]
pub struct Completed {
    /// Whose move.
    pub owner: String,
    /// The tables that were dropped from the source.
    pub dropped: Vec<Qualified>,
}

/// Drops the tables that were left, and everything that served the move.
///
/// # Errors
/// [`crate::exit::Refused`] unless the old tables are fenced, and hold the same rows as the new ones.
pub async fn run(moving: &mut Move, locking: Locking) -> Result<Completed> {
    let state = moving.state()?.clone();
    let owner = moving.moving().clone();
    let name = moving.owner.clone();
    let names = moving.names(state.number);
    let begun = state.pending.as_deref() == Some("complete");
    require!(
        state.lives == Place::Target,
        "the tables still live in the source: `splitctl cutover {name}`, or `splitctl abort {name}`"
    );
    require!(
        !matches!(state.pending.as_deref(), Some("cutover" | "rollback")),
        "the last switch has not come to its end: repeat `splitctl cutover {name}`"
    );
    if !begun {
        require!(
            state.is_verified(),
            "the old rows have not been compared with the new ones since the cutover: `splitctl verify {name}`"
        );
        check_fenced(moving, &owner.tables).await?;
        let token = marker::set(&mut moving.target.connection, &name).await?;
        require!(
            marker::arrives(&mut moving.source.connection, &name, token, LAG).await?,
            "the old tables are more than {LAG:?} behind the new ones: `splitctl status {name}`"
        );
        append(&mut moving.source.connection, state.number, &name, "complete", "intent", &json!({ "tables": owner.tables }))
            .await?;
    }
    crash_point("complete intended");
    stream::end_all(&mut moving.source, &mut moving.target, &names).await?;
    crash_point("streams ended");
    let old = relations::tables(&mut moving.source.connection, &owner.tables).await?;
    if !old.is_empty() {
        drop_old(moving, &old.iter().map(|table| table.name.clone()).collect::<Vec<_>>(), locking).await?;
    }
    crash_point("old tables dropped");
    clean(moving, locking).await?;
    append(&mut moving.source.connection, state.number, &name, "complete", "record", &json!({})).await?;
    Ok(Completed { owner: name, dropped: owner.tables })
}

/// Every relation has the trigger, and nobody but its owner has rights.
async fn check_fenced(moving: &mut Move, tables: &[Qualified]) -> Result<()> {
    let oids = relations::oids(tables);
    let open = format!(
        "select format('%I.%I', n.nspname, c.relname)
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.oid in ({oids}) and c.relkind in ('r', 'p')
           and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'splitctl_fence' and t.tgenabled = 'O')"
    );
    let open: Vec<String> = sqlx::query_scalar(AssertSqlSafe(open)).fetch_all(&mut moving.source.connection).await?;
    require!(open.is_empty(), "these old tables are not fenced: {}; somebody has taken the triggers off", open.join(", "));
    let owner = moving.moving().clone();
    let rights = super::rights::read(&mut moving.source.connection, &owner).await?;
    require!(
        rights.revokes.is_empty(),
        "somebody has been given rights on the old tables since the cutover: {}",
        rights.roles.join(", ")
    );
    Ok(())
}

/// All of them at once, and nothing that hangs on them: that is told instead.
async fn drop_old(moving: &mut Move, tables: &[Qualified], locking: Locking) -> Result<()> {
    let views: Vec<String> = moving.moving().views.iter().map(Qualified::sql).collect();
    let connection = &mut moving.source.connection;
    let listed: Vec<String> = tables.iter().map(Qualified::sql).collect();
    let views = if views.is_empty() { String::new() } else { format!("drop view if exists {};", views.join(", ")) };
    let statement = format!("begin; {views} drop table {}; commit", listed.join(", "));
    let dropped = fence::patiently(connection, tables, locking, async |connection: &mut sqlx::PgConnection| {
        execute(connection, statement.clone()).await
    });
    if let Err(error) = dropped.await {
        let detail = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        let detail = detail.and_then(|error| error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>());
        if let Some(detail) = detail.filter(|detail| detail.code() == "2BP01") {
            require!(
                false,
                "the old tables are not dropped while these hang on them: {}. Drop them, and repeat the command",
                detail.detail().unwrap_or_default()
            );
        }
        return Err(error);
    }
    Ok(())
}

/// Takes away, on both sides, what served the move; the source keeps journal and switches.
pub(super) async fn clean(moving: &mut Move, locking: Locking) -> Result<()> {
    let state = moving.state()?.clone();
    let (tables, name) = (moving.moving().tables.clone(), moving.owner.clone());
    let names = moving.names(state.number);
    let trigger = copy::event_trigger(&name);
    for side in [&mut moving.source, &mut moving.target] {
        stream::unpublish(&mut side.connection, &names).await?;
        for statement in [fence::UNGUARD, fence::UNCLOSE] {
            let statements = fence::for_each(&mut side.connection, &tables, statement).await?;
            fence::run_each(&mut side.connection, &tables, &statements, locking).await?;
        }
        execute(
            &mut side.connection,
            format!("set client_min_messages = warning; drop table if exists {}", marker::table(&name)),
        )
        .await?;
        if side.superuser {
            execute(
                &mut side.connection,
                format!("drop event trigger if exists {trigger}; drop function if exists splitctl.{trigger}()"),
            )
            .await?;
        }
    }
    crash_point("cleaned");
    // A target that is not a source itself keeps nothing of ours.
    let target = &mut moving.target.connection;
    let row = sqlx::query("select to_regclass('splitctl.journal') is null and to_regnamespace('splitctl') is not null")
        .fetch_one(&mut *target)
        .await?;
    if row.try_get(0)? {
        execute(target, "drop schema splitctl cascade").await?;
    }
    Ok(())
}

impl Completed {
    /// What to do next.
    pub fn next(&self, moving: &Move) -> String {
        format!(
            "give the service of {} {} as its database, and take its NEXT variable away, at its next restart",
            self.owner,
            place(&moving.target.url)
        )
    }
}
