//! Crossings join the moving tables to those that stay, and must be replaced before the cutover. splitctl can drop the
//! foreign keys among them, and create them again.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{FromRow, PgConnection, query_as};

use super::fence::{self, Locking};
use super::journal::{Journal, State, Step};
use super::relations;
use super::side::{Database, Side};
use super::{Move, crash_point};
use crate::audit;
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::{Qualified, quote_ident};

/// A foreign key between a table that moves and one that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct ForeignKey {
    /// The table that has it.
    #[sqlx(flatten)]
    pub table: Qualified,
    /// Its name.
    #[sqlx(rename = "constraint_name")]
    pub name: String,
    /// Its definition, from `pg_get_constraintdef`.
    pub definition: String,
}

/// Describes the crossings that stand, and what replaces each.
pub async fn list(the_move: &mut Move) -> Result<Vec<String>> {
    let Move { manifest, owner_name, owner, source, .. } = the_move;
    let connection = &mut source.connection;
    let mut crossings = Vec::new();
    for ForeignKey { table, name, .. } in foreign_keys(connection, &owner.tables).await? {
        crossings
            .push(format!("{table}: the foreign key {name} crosses to the other database: `splitctl detach {owner_name}`"));
    }
    crossings.extend(relations::select_lines(connection, VIEWS, &owner.relations()).await?);
    for finding in audit::code_across(connection, manifest, owner_name).await? {
        crossings.push(format!("{}: {}. {}", finding.object, finding.detail, finding.replace_by));
    }
    Ok(crossings)
}

/// Drops the foreign keys that cross. The journal keeps their definitions.
///
/// # Errors
/// [`Refused`] if no move is open, or a table cannot be locked.
pub async fn detach(the_move: &mut Move, locking: Locking) -> Result<Vec<ForeignKey>> {
    the_move.check_open()?;
    let Move { owner_name, owner, source, journal, state, .. } = the_move;
    require!(state.switch.lives == Side::Source, "{owner_name}: the tables live in the target, so no foreign key crosses");
    state.check_not_ending(owner_name)?;
    let keys = foreign_keys(&mut source.connection, &owner.tables).await?;
    // An earlier run may have dropped some keys and then been killed.
    let mut known = state.detached.clone();
    known.extend(keys.iter().filter(|key| !state.detached.contains(key)).cloned());
    journal.intend(Step::Detach, &known).await?;
    crash_point("detach intended");
    let drop = |key: &ForeignKey| format!("alter table {} drop constraint {}", key.table.sql(), quote_ident(&key.name));
    let drops: Vec<String> = keys.iter().map(drop).collect();
    fence::run_each(&mut source.connection, &owner.tables, &drops, locking).await?;
    journal.record(Step::Detach, &known).await?;
    Ok(keys)
}

/// Creates the foreign keys again that `detach` dropped.
///
/// # Errors
/// [`Refused`] if rows break a key.
pub async fn attach(the_move: &mut Move, locking: Locking) -> Result<Vec<ForeignKey>> {
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
/// [`Refused`] if rows break a key.
pub async fn attach_all(
    source: &mut Database,
    journal: &mut Journal,
    state: &State,
    locking: Locking,
) -> Result<Vec<ForeignKey>> {
    if state.detached.is_empty() {
        return Ok(Vec::new());
    }
    journal.intend(Step::Attach, &state.detached).await?;
    for key in &state.detached {
        attach_one(source, key, locking).await.map_err(|error| explain(error, key))?;
    }
    journal.record(Step::Attach, json!({})).await?;
    Ok(state.detached.clone())
}

/// The key holds first for new rows, then for those that exist.
async fn attach_one(source: &mut Database, key: &ForeignKey, locking: Locking) -> Result<()> {
    let (table, name) = (key.table.sql(), quote_ident(&key.name));
    let found = query_as(FOUND).bind(&table).bind(&key.name).fetch_one(&mut source.connection).await?;
    let Found { is_partitioned, has_key } = found;
    let (definition, was_valid) = match key.definition.strip_suffix(" NOT VALID") {
        Some(definition) => (definition, false),
        None => (&*key.definition, true),
    };
    // Before Postgres 18, a partitioned table takes no key without a check of its rows.
    let later = if is_partitioned && source.version < 18 { "" } else { " not valid" };
    if !has_key {
        let add = format!("alter table {table} add constraint {name} {definition}{later}");
        fence::run_each(&mut source.connection, std::slice::from_ref(&key.table), &[add], locking).await?;
    }
    if was_valid {
        execute(&mut source.connection, format!("alter table {table} validate constraint {name}")).await?;
    }
    Ok(())
}

/// If rows break a key, a person has to correct them.
fn explain(error: anyhow::Error, ForeignKey { table, name, .. }: &ForeignKey) -> anyhow::Error {
    match error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error) {
        Some(reason) => Refused(format!(
            "{table}: the foreign key {name} is not valid again ({}): correct the rows and repeat `splitctl attach`; \
             after an abort, run `alter table {table} validate constraint {name}`",
            reason.message()
        ))
        .into(),
        None => error,
    }
}

async fn foreign_keys(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<ForeignKey>, sqlx::Error> {
    relations::select(connection, FOREIGN_KEYS, tables).await
}

const FOREIGN_KEYS: &str = r"
    select
        n.nspname::text as schema,
        t.relname::text as name,
        c.conname::text as constraint_name,
        pg_get_constraintdef(c.oid) as definition
    from pg_constraint c
    join pg_class t on t.oid = c.conrelid
    join pg_namespace n on n.oid = t.relnamespace
    where c.contype = 'f'
      and c.conparentid = 0
      and (c.conrelid = any ($1)) <> (c.confrelid = any ($1))
    order by 1, 2, 3";

/// Views that read from both the moving and the other relations.
const VIEWS: &str = r"
    select distinct format(
        '%I.%I: the view reads %I.%I, which %s: put a table of its own side behind it, or list it in the manifest',
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

#[derive(FromRow)]
struct Found {
    is_partitioned: bool,
    has_key: bool,
}

const FOUND: &str = r"
    select
        coalesce((select relkind = 'p' from pg_class where oid = to_regclass($1)), false) as is_partitioned,
        exists (
            select
            from pg_constraint
            where conrelid = to_regclass($1)
              and conname = $2
        ) as has_key";
