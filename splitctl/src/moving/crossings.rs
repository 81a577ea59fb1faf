//! What joins the moving tables to those that stay, and must be replaced before the cutover. Foreign keys can be taken off
//! here, and put back.

use anyhow::Result;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::fence::{self, Locking};
use super::journal::{Detached, append};
use super::relations::{listed, oids};
use super::side::Place;
use super::{Move, crash_point};
use crate::audit;
use crate::database::execute;
use crate::exit::require;
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
    let views = if owner.views.is_empty() {
        "select null::oid limit 0".to_owned()
    } else {
        format!(
            "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where (n.nspname, c.relname) in ({})",
            listed(&owner.views)
        )
    };
    let reading = format!(
        "with moving as ({} union {views})
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
        oids(&owner.tables)
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
    let tables = moving.moving().tables.clone();
    let owner = moving.owner.clone();
    let connection = &mut moving.source.connection;
    append(connection, state.number, &owner, "attach", "intent", &json!(state.detached)).await?;
    for key in &state.detached {
        let there = sqlx::query_scalar::<_, bool>(
            "select exists (select from pg_constraint where conrelid = to_regclass($1) and conname = $2)",
        );
        if !there.bind(key.table.sql()).bind(&key.name).fetch_one(&mut *connection).await? {
            let definition = key.definition.trim_end_matches(" NOT VALID");
            let add =
                format!("alter table {} add constraint {} {definition} not valid", key.table.sql(), quote_ident(&key.name));
            fence::run_each(connection, &tables, &[add], locking).await?;
        }
        let validate = format!("alter table {} validate constraint {}", key.table.sql(), quote_ident(&key.name));
        if let Err(error) = execute(connection, validate).await {
            let reason = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            require!(
                false,
                "{} on {} is back for new rows, but rows that are there break it ({reason}): mend them, and repeat `splitctl attach {owner}`",
                key.name,
                key.table
            );
        }
    }
    append(connection, state.number, &owner, "attach", "record", &json!({})).await?;
    Ok(state.detached)
}
