//! The end of a move: the only step without a way back.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::fence::{self, Locking};
use super::journal::{State, append};
use super::relations;
use super::side::{Place, Side};
use super::stream::Names;
use super::{Move, copy, crash_point, marker, sequences, stream};
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
/// [`crate::exit::Refused`] unless the old tables are fenced, and hold the same rows as the new ones; the latter is not asked
/// for if the way back is given up, since nothing keeps the old tables up then.
pub async fn run(moving: &mut Move, locking: Locking, give_up_way_back: bool) -> Result<Completed> {
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
        check_fenced(moving, &owner.tables).await?;
        try_to_drop(moving, &owner.tables, locking).await?;
        if !give_up_way_back {
            require_equal(moving, &state).await?;
        }
        append(
            &mut moving.source.connection,
            state.number,
            &name,
            "complete",
            "intent",
            &json!({ "tables": owner.tables, "way back given up": give_up_way_back }),
        )
        .await?;
    }
    crash_point("complete intended");
    stream::end_all(&mut moving.source, &mut moving.target, &names).await?;
    crash_point("streams ended");
    let old = relations::tables(&mut moving.source.connection, &owner.tables).await?;
    if !old.is_empty() {
        drop_old(moving, &old.iter().map(|table| table.name.clone()).collect::<Vec<_>>(), locking, "commit").await?;
    }
    crash_point("old tables dropped");
    clean(moving, locking).await?;
    append(&mut moving.source.connection, state.number, &name, "complete", "record", &json!({})).await?;
    Ok(Completed { owner: name, dropped: owner.tables })
}

/// The old tables hold what the new ones hold, and nothing is on its way.
async fn require_equal(moving: &mut Move, state: &State) -> Result<()> {
    let name = moving.owner.clone();
    require!(
        state.is_verified(),
        "the old rows have not been compared with the new ones since the cutover: `splitctl verify {name}`"
    );
    let token = marker::set(&mut moving.target.connection, &name).await?;
    require!(
        marker::arrives(&mut moving.source.connection, &name, token, LAG).await?,
        "the old tables are more than {LAG:?} behind the new ones: see `splitctl status {name}`; if the way back is lost, `splitctl complete {name} --give-up-way-back`"
    );
    Ok(())
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

/// Whether nothing hangs on the old tables, before anything is given up for it.
async fn try_to_drop(moving: &mut Move, tables: &[Qualified], locking: Locking) -> Result<()> {
    drop_old(moving, tables, locking, "rollback").await
}

/// All of them at once, and nothing that hangs on them: that is told instead.
async fn drop_old(moving: &mut Move, tables: &[Qualified], locking: Locking, end: &str) -> Result<()> {
    let views = moving.moving().views.clone();
    let connection = &mut moving.source.connection;
    let statement = format!("begin; {}; {end}", dropping(connection, tables, &views).await?);
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

/// Statements that drop the tables, the owner's views on them, and the sequences that stand free and are drawn from by them.
pub(super) async fn dropping(
    connection: &mut sqlx::PgConnection,
    tables: &[Qualified],
    views: &[Qualified],
) -> Result<String> {
    let listed = |relations: &[Qualified]| relations.iter().map(Qualified::sql).collect::<Vec<_>>().join(", ");
    let mut statements = Vec::new();
    if !views.is_empty() {
        statements.push(format!("drop view if exists {}", listed(views)));
    }
    let sequences = sequences::of(connection, tables).await?;
    statements.push(format!("drop table {}", listed(tables)));
    if !sequences.is_empty() {
        // Those that belong to a table have gone with it.
        statements.push(format!("drop sequence if exists {}", listed(&sequences)));
    }
    Ok(statements.join("; "))
}

/// Takes away, on both sides, what served the move; the source keeps journal and switches.
pub(super) async fn clean(moving: &mut Move, locking: Locking) -> Result<()> {
    let state = moving.state()?.clone();
    let (names, name) = (moving.names(state.number), moving.owner.clone());
    for side in [&mut moving.source, &mut moving.target] {
        clean_side(side, &names, &name, &state, locking).await?;
    }
    crash_point("cleaned");
    // A target that is not a source itself keeps nothing of ours.
    let target = &mut moving.target.connection;
    let ours = "select to_regclass('splitctl.journal') is null and to_regnamespace('splitctl') is not null";
    if sqlx::query_scalar(ours).fetch_one(&mut *target).await? {
        execute(target, "set client_min_messages = warning; drop schema splitctl cascade").await?;
    }
    Ok(())
}

/// The same on one side.
pub(super) async fn clean_side(side: &mut Side, names: &Names, owner: &str, state: &State, locking: Locking) -> Result<()> {
    let tables = &state.begun.tables;
    stream::unpublish(&mut side.connection, names).await?;
    let of_all = [fence::UNGUARD, fence::UNCLOSE].map(|statement| (tables, statement));
    for (tables, statement) in of_all.into_iter().chain([(&state.begun.keyless, "alter table {} replica identity default")])
    {
        let statements = fence::for_each(&mut side.connection, tables, statement).await?;
        fence::run_each(&mut side.connection, tables, &statements, locking).await?;
    }
    let marker = format!("set client_min_messages = warning; drop table if exists {}", marker::table(owner));
    execute(&mut side.connection, marker).await?;
    if side.superuser {
        let trigger = copy::event_trigger(owner);
        let drop = format!("drop event trigger if exists {trigger}; drop function if exists splitctl.{trigger}()");
        execute(&mut side.connection, drop).await?;
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
