//! Removes what served a move: triggers, publications and the marker. The source keeps the journal and the switches.

use anyhow::Result;
use sqlx::query_scalar;

use super::fence::{self, Locking};
use super::journal::State;
use super::side::Database;
use super::{Move, applier, copy, crash_point, definitions, marker, migrate, relations, stream};
use crate::database::execute;
use crate::names::Qualified;

/// Cleans both sides.
pub async fn run(the_move: &mut Move, locking: Locking) -> Result<()> {
    let Move { owner_name, source, target, state, .. } = the_move;
    clean(source, owner_name, state, locking).await?;
    clean(target, owner_name, state, locking).await?;
    // The first call left the role to the second one if both databases are of one cluster.
    applier::drop(source, &state.names).await?;
    crash_point("cleaned");
    // A target that is the source of another move has a journal; any other keeps nothing of splitctl.
    if query_scalar(IS_UNUSED).fetch_one(&mut target.connection).await? {
        execute(&mut target.connection, "drop schema splitctl cascade").await?;
    }
    Ok(())
}

/// Cleans one side.
pub async fn clean(database: &mut Database, owner_name: &str, state: &State, locking: Locking) -> Result<()> {
    let (tables, keyless) = (&state.begun.tables, &state.begun.keyless);
    stream::unpublish(&mut database.connection, &state.names).await?;
    for statement in [fence::UNGUARD, fence::UNFENCE] {
        fence::run_for_each(&mut database.connection, tables, statement, locking).await?;
    }
    let all = relations::with_partitions(&mut database.connection, keyless).await?;
    let changed = all.iter().filter(|table| !state.begun.full.contains(table));
    let restore = |table: &Qualified| format!("alter table {} replica identity default", table.sql());
    let identities: Vec<String> = changed.map(restore).collect();
    fence::run_each(&mut database.connection, keyless, &identities, locking).await?;
    applier::drop(database, &state.names).await?;
    marker::drop(&mut database.connection, owner_name).await?;
    migrate::forget(&mut database.connection, owner_name).await?;
    copy::forget(&mut database.connection, owner_name).await?;
    definitions::unguard(database, owner_name).await
}

const IS_UNUSED: &str = r"
    select
        to_regclass('splitctl.journal') is null
        and to_regnamespace('splitctl') is not null";
