//! What joins the moving tables to those that stay, and must be replaced before the cutover. Foreign keys can be taken off
//! here, and put back.

use anyhow::Result;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::fence::{self, Locking};
use super::journal::{Detached, State, append};
use super::relations::oids;
use super::side::{Place, Side};
use super::{Move, crash_point};
use crate::audit;
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::{Qualified, quote_ident};

/// The crossings that still stand, in words.
pub async fn standing(moving: &mut Move) -> Result<Vec<String>> {
    let owner = moving.moving().clone();
    let connection = &mut moving.source.connection;
    let mut standing: Vec<String> = foreign_keys(connection, &owner.tables)
        .await?
        .into_iter()
        .map(|key| {
            format!(
                "the foreign key {} on {} joins what will be in two databases: `splitctl detach {}`",
                key.name, key.table, moving.owner
            )
        })
        .collect();
    let reading = format!(
        "with moving as ({})
         select distinct format('the view %I.%I reads %I.%I, which %s: put a table of its own side behind it, or list it', vn.nspname, v.relname, tn.nspname, t.relname,
             case when t.oid in (select relid from moving) then 'moves' else 'stays' end)
         from pg_rewrite r
         join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
         join pg_namespace vn on vn.oid = v.relnamespace
         join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
         join pg_class t on t.oid = d.refobjid and t.relkind in ('r', 'p', 'v', 'm')
         join pg_namespace tn on tn.oid = t.relnamespace
         where (v.oid in (select relid from moving)) <> (t.oid in (select relid from moving))
           and vn.nspname not in ('pg_catalog', 'information_schema') and tn.nspname not in ('pg_catalog', 'information_schema')
         order by 1",
        oids(&owner.relations())
    );
    standing.extend(sqlx::query_scalar::<_, String>(AssertSqlSafe(reading)).fetch_all(&mut *connection).await?);
    let code = audit::code_across(connection, &moving.manifest, &moving.owner).await?;
    standing
        .extend(code.into_iter().map(|finding| format!("{}: {}. {}", finding.object, finding.detail, finding.replace_by)));
    Ok(standing)
}

/// Foreign keys between tables that move and tables that stay.
async fn foreign_keys(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Detached>> {
    let statement = format!(
        "with moving as ({})
         select n.nspname::text, t.relname::text, c.conname::text, pg_get_constraintdef(c.oid)
         from pg_constraint c
         join pg_class t on t.oid = c.conrelid
         join pg_namespace n on n.oid = t.relnamespace
         where c.contype = 'f' and c.conparentid = 0
           and (c.conrelid in (select relid from moving)) <> (c.confrelid in (select relid from moving))
         order by 1, 2, 3",
        oids(tables)
    );
    let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(connection).await?;
    let read = rows.iter().map(|row| {
        let table = Qualified::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?);
        Ok(Detached { table, name: row.try_get(2)?, definition: row.try_get(3)? })
    });
    read.collect()
}

/// Takes the crossing foreign keys off, and keeps their definitions in the journal.
///
/// # Errors
/// [`crate::exit::Refused`] if no move is open, or a lock cannot be had.
pub async fn detach(moving: &mut Move, locking: Locking) -> Result<Vec<Detached>> {
    let state = moving.state()?.clone();
    require!(state.lives == Place::Source, "the tables have left the source: its foreign keys are off");
    state.check_goes_on(&moving.owner)?;
    let tables = moving.moving().tables.clone();
    let owner = moving.owner.clone();
    let connection = &mut moving.source.connection;
    let keys = foreign_keys(connection, &tables).await?;
    // Those of an earlier try that did not come to its end stay known.
    let mut known = state.detached.clone();
    known.extend(keys.iter().filter(|key| !state.detached.contains(key)).cloned());
    append(connection, state.number, &owner, "detach", "intent", &json!(known)).await?;
    crash_point("detach intended");
    let drops: Vec<String> = keys
        .iter()
        .map(|key| format!("alter table {} drop constraint {}", key.table.sql(), quote_ident(&key.name)))
        .collect();
    fence::run_each(connection, &tables, &drops, locking).await?;
    append(connection, state.number, &owner, "detach", "record", &json!(known)).await?;
    Ok(keys)
}

/// Puts back the foreign keys that were taken off: first for what is written from now on, then for what is there.
///
/// # Errors
/// [`crate::exit::Refused`] if rows break one: which key.
pub async fn attach(moving: &mut Move, locking: Locking) -> Result<Vec<Detached>> {
    let state = moving.state()?.clone();
    require!(state.lives == Place::Source, "the tables live in the target: `splitctl rollback {}` first", moving.owner);
    put_back(&mut moving.source, &moving.owner, &state, locking).await
}

/// The same, on the source alone.
pub(super) async fn put_back(source: &mut Side, owner: &str, state: &State, locking: Locking) -> Result<Vec<Detached>> {
    if state.detached.is_empty() {
        return Ok(Vec::new());
    }
    let version = source.version;
    let connection = &mut source.connection;
    append(connection, state.number, owner, "attach", "intent", &json!(state.detached)).await?;
    for key in &state.detached {
        let (table, name) = (key.table.sql(), quote_ident(&key.name));
        let there = sqlx::query(
            "select (select relkind = 'p' from pg_class where oid = to_regclass($1)), exists (select from pg_constraint where conrelid = to_regclass($1) and conname = $2)",
        );
        let row = there.bind(&table).bind(&key.name).fetch_one(&mut *connection).await?;
        let (partitioned, there): (Option<bool>, bool) = (row.try_get(0)?, row.try_get(1)?);
        let (definition, was_valid) = match key.definition.strip_suffix(" NOT VALID") {
            Some(definition) => (definition, false),
            None => (&*key.definition, true),
        };
        // A key of a partitioned table comes with a look at its rows, or not at all, before 18.
        let later = if partitioned == Some(true) && version < 18 { "" } else { " not valid" };
        if !there {
            let add = format!("alter table {table} add constraint {name} {definition}{later}");
            fence::run_each(connection, &state.begun.tables, &[add], locking)
                .await
                .map_err(|error| broken(error, key, owner))?;
        }
        if was_valid {
            let validate = execute(connection, format!("alter table {table} validate constraint {name}")).await;
            validate.map_err(|error| broken(error.into(), key, owner))?;
        }
    }
    append(connection, state.number, owner, "attach", "record", &json!({})).await?;
    Ok(state.detached.clone())
}

/// A key that rows break is for people to mend.
fn broken(error: anyhow::Error, key: &Detached, owner: &str) -> anyhow::Error {
    let reason =
        error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error).map(|error| error.message().to_owned());
    match reason {
        Some(reason) => Refused(format!(
            "the foreign key {} on {} is not back as it was ({reason}): mend the rows, and repeat `splitctl attach {owner}`",
            key.name, key.table
        ))
        .into(),
        None => error,
    }
}
