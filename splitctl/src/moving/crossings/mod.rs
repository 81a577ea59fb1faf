//! Crossings join the moving tables to those that stay, and must be replaced before the cutover. splitctl can drop foreign
//! keys, triggers, functions and views among them, and create them again as they were.

pub(super) mod crossing;
mod standing;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sqlx::postgres::PgDatabaseError;
use sqlx::{PgConnection, query_scalar};

use super::fence::{self, Locking};
use super::journal::{Journal, State, Step};
use super::relations;
use super::side::{Database, Side};
use super::{Move, crash_point};
use crate::audit;
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::quote_ident;
pub use crossing::{Crossing, Kind};

/// How often `detach` looks again: a function crosses on its own once no trigger calls it.
const ROUNDS: u32 = 5;

/// Describes the crossings that stand, and what replaces each.
pub async fn list(the_move: &mut Move) -> Result<Vec<String>> {
    let Move { manifest, owner_name, owner, source, .. } = the_move;
    let connection = &mut source.connection;
    let mut crossings = Vec::new();
    for key in standing::foreign_keys(connection, &owner.tables).await? {
        crossings.push(format!("{key} crosses to the other database: `splitctl detach {owner_name}`"));
    }
    crossings.extend(relations::select_lines(connection, VIEWS, &owner.relations()).await?);
    for finding in audit::code_across(connection, manifest, owner_name).await? {
        crossings.push(format!("{}: {}. {}", finding.object, finding.detail, finding.replace_by));
    }
    Ok(crossings)
}

/// Drops what crosses. The journal keeps the definitions.
///
/// # Errors
/// [`Refused`] if no move is open, a table cannot be locked, or another object depends on one that crosses.
pub async fn detach(the_move: &mut Move, locking: Locking) -> Result<Vec<Crossing>> {
    the_move.check_open()?;
    let Move { owner_name, state, .. } = &*the_move;
    require!(state.switch.lives == Side::Source, "{owner_name}: the tables live in the target, so nothing crosses");
    state.check_not_ending(owner_name)?;
    let mut dropped = Vec::new();
    // An earlier run may have dropped some and then been killed.
    let mut known = state.detached.clone();
    for _ in 0..ROUNDS {
        let found = standing::list(the_move).await?;
        if found.is_empty() && !dropped.is_empty() {
            break;
        }
        // What stands is dropped now, so it comes back before what was dropped earlier.
        known.retain(|known| !found.iter().any(|found| found.is(known)));
        known.extend(found.iter().cloned());
        the_move.journal.intend(Step::Detach, &known).await?;
        crash_point("detach intended");
        for crossing in &found {
            drop_one(the_move, crossing, locking).await?;
        }
        dropped.extend(found);
        if dropped.is_empty() {
            break;
        }
    }
    the_move.journal.record(Step::Detach, &known).await?;
    Ok(dropped)
}

/// Creates again what `detach` dropped.
///
/// # Errors
/// [`Refused`] with every object that could not be created, and the statements that create it.
pub async fn attach(the_move: &mut Move, locking: Locking) -> Result<Vec<Crossing>> {
    the_move.check_open()?;
    let Move { owner_name, source, journal, state, .. } = the_move;
    require!(
        state.switch.lives == Side::Source,
        "{owner_name}: the tables live in the target: `splitctl rollback {owner_name}` first"
    );
    attach_all(source, journal, state, locking).await
}

/// Does the same, with the source alone.
///
/// # Errors
/// As [`attach`].
pub async fn attach_all(
    source: &mut Database,
    journal: &mut Journal,
    state: &State,
    locking: Locking,
) -> Result<Vec<Crossing>> {
    if state.detached.is_empty() {
        return Ok(Vec::new());
    }
    journal.intend(Step::Attach, &state.detached).await?;
    let mut lost = Vec::new();
    // An object is dropped before those that it needs, so it comes back after them.
    for crossing in state.detached.iter().rev() {
        if let Err(error) = crossing.restore(source, locking).await {
            lost.push(explain(&error, crossing));
        }
        crash_point("crossing attached");
    }
    if !lost.is_empty() {
        let found = if lost.len() == 1 { "1 object is".to_owned() } else { format!("{} objects are", lost.len()) };
        return Err(Refused(format!("{found} not back as before:\n  {}", lost.join("\n  "))).into());
    }
    journal.record(Step::Attach, json!({})).await?;
    Ok(state.detached.clone())
}

/// Readers wait behind the lock that a drop asks for: at most `lock_timeout`, although the drop of a key locks two tables.
async fn drop_one(the_move: &mut Move, crossing: &Crossing, locking: Locking) -> Result<()> {
    let Move { owner, source, target, .. } = the_move;
    let (begin, drop) = (begin_in_time(locking.lock_timeout), format!("{}; commit", crossing.dropping()));
    let tables = std::slice::from_ref(&crossing.table);
    let dropped = fence::patiently(&mut source.connection, tables, locking, async |connection: &mut PgConnection| {
        execute(connection, begin.clone()).await?;
        execute(connection, drop.clone()).await
    });
    if let Err(error) = dropped.await {
        return Err(not_dropped(error, crossing, &mut source.connection).await?.into());
    }
    // The copy brought the trigger to the target, where it would miss the tables that stay.
    if crossing.kind == Kind::Trigger && owner.tables.contains(&crossing.table) {
        let (name, table) = (quote_ident(&crossing.name), crossing.table.sql());
        let drop = [format!("drop trigger if exists {name} on {table}")];
        fence::run_each(&mut target.connection, tables, &drop, locking).await?;
    }
    Ok(())
}

fn begin_in_time(limit: Duration) -> String {
    format!("begin; set local statement_timeout = {}", limit.as_millis())
}

/// Names the object that was not dropped, and those in the way.
async fn not_dropped(error: anyhow::Error, crossing: &Crossing, connection: &mut PgConnection) -> Result<Refused> {
    let next = "repeat `splitctl detach`; or run `splitctl attach`, which puts back what was dropped";
    if error.is::<Refused>() {
        let users: Vec<String> = query_scalar(USERS).bind(crossing.table.sql()).fetch_all(connection).await?;
        let users = if users.is_empty() { "none is left".to_owned() } else { users.join("; ") };
        return Ok(Refused(format!("{crossing} could not be locked. Sessions that use its tables: {users}. {next}")));
    }
    let server = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    match server.and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        Some(found) if found.code() == "2BP01" => {
            let dependents = found.detail().unwrap_or_default().replace('\n', "; ");
            Ok(Refused(format!(
                "{crossing} cannot be dropped, because these depend on it: {dependents}. Drop them, and {next}"
            )))
        }
        _ => Err(error),
    }
}

/// Names the object, the reason, and what a person can run.
fn explain(error: &anyhow::Error, crossing: &Crossing) -> String {
    let server = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    let reason = server.map_or_else(|| format!("{error:#}"), |error| error.message().to_owned());
    if crossing.kind == Kind::ForeignKey && server.is_some_and(|error| error.code().as_deref() == Some("23503")) {
        let (table, name) = (crossing.table.sql(), quote_ident(&crossing.name));
        return format!(
            "{crossing} is not valid again ({reason}): correct the rows and repeat `splitctl attach`; after an abort, run \
             `alter table {table} validate constraint {name}`"
        );
    }
    format!(
        "{crossing} is not there again ({reason}): correct that and repeat `splitctl attach`; after an abort, run:\n{}",
        crossing.creating()
    )
}

/// Views that read from both the moving and the other relations.
const VIEWS: &str = r"
    select distinct format(
        '%I.%I: the view reads %I.%I, which %s: put a table of its own side behind it, list it in the manifest, '
        'or run `splitctl detach`',
        vn.nspname,
        v.relname,
        tn.nspname,
        t.relname,
        case when t.oid = any ($1) then 'moves' else 'stays' end
    )
    from pg_rewrite r
    join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_namespace vn on vn.oid = v.relnamespace
    join pg_depend d
      on d.classid = 'pg_rewrite'::regclass
     and d.objid = r.oid
     and d.refclassid = 'pg_class'::regclass
     and d.refobjid <> v.oid
    join pg_class t on t.oid = d.refobjid and t.relkind in ('r', 'p', 'v', 'm')
    join pg_namespace tn on tn.oid = t.relnamespace
    where (v.oid = any ($1)) <> (t.oid = any ($1))
      and vn.nspname not in ('pg_catalog', 'information_schema')
      and tn.nspname not in ('pg_catalog', 'information_schema')
    order by 1";

/// Sessions that hold a lock on a table, or on one that its foreign keys refer to: a reader is enough to keep a drop
/// waiting.
const USERS: &str = r"
    select distinct format(
        'process %s (%s, role %s), %s for %s, holds %s on %s',
        a.pid,
        coalesce(nullif(a.application_name, ''), a.backend_type),
        coalesce(a.usename, '–'),
        coalesce(a.state, 'active'),
        (clock_timestamp() - coalesce(a.xact_start, a.backend_start))::interval(0),
        l.mode,
        l.relation::regclass
    )
    from pg_locks l
    join pg_stat_activity a on a.pid = l.pid
    where l.granted
      and l.locktype = 'relation'
      and l.database = (select oid from pg_database where datname = current_database())
      and l.pid <> pg_backend_pid()
      and (
          l.relation = to_regclass($1)
          or exists (
              select
              from pg_constraint c
              where c.contype = 'f'
                and c.conrelid = to_regclass($1)
                and c.confrelid = l.relation
          )
      )
    order by 1";
