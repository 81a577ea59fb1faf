//! Checks that call functions. Such a function may read other tables, so a row may pass only when all rows are there.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::{FromRow, query_scalar};

use super::pg_dump::Entry;
use crate::database::{execute, sqlstate};
use crate::exit::Refused;
use crate::manifest::Owner;
use crate::moving::inventory::{Id, Inventory};
use crate::moving::relations;
use crate::moving::side::Database;

/// A check that is valid in the source, and that calls a function of the database.
#[derive(FromRow)]
pub(super) struct Calling {
    oid: i64,
    /// Takes it from the table that was just created with it.
    drop: String,
    /// Brings it back with its comment; no row is looked at.
    add: String,
}

/// Those of the tables that move, but for the ones that `pg_dump` does not create with their tables.
pub(super) async fn read(
    source: &mut Database,
    owner: &Owner,
    inventory: &Inventory,
    entries: &[Entry],
) -> Result<Vec<Calling>, sqlx::Error> {
    let mut moving: BTreeSet<Id> = inventory.moving().map(|object| object.id()).collect();
    for entry in entries {
        moving.remove(&entry.object);
    }
    let mut checks: Vec<Calling> = relations::select(&mut source.connection, CALLING, &owner.tables).await?;
    checks.retain(|check| moving.contains(&(PG_CONSTRAINT, check.oid)));
    Ok(checks)
}

/// Statements that take the checks off the tables, and that bring them back.
pub(super) fn statements(checks: &[Calling]) -> (String, String) {
    let join = |text: fn(&Calling) -> &str| checks.iter().map(text).collect::<Vec<_>>().join("; ");
    (join(|check| &check.drop), join(|check| &check.add))
}

/// Has the target look at all rows for the checks that are valid in the source. The stream goes on.
///
/// # Errors
/// [`Refused`] with a check that rows do not pass.
pub async fn validate(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<()> {
    let valid = relations::select_lines(&mut source.connection, VALID, &owner.tables).await?;
    let oids = relations::oids(&mut target.connection, &owner.tables).await?;
    let left: Vec<String> = query_scalar(NOT_VALID).bind(oids).bind(valid).fetch_all(&mut target.connection).await?;
    for check in left {
        let statement = format!("alter table {}", check.replacen(" constraint ", " validate constraint ", 1));
        match execute(&mut target.connection, statement).await {
            Err(error) if sqlstate(&error).as_deref() == Some("23514") => {
                let text = format!(
                    "{check}: it is valid in the source, and some rows do not pass it any more. Correct these rows in the \
                     source, and repeat the command; or abort, replace the check in the source by one that is `not valid`, \
                     and copy again"
                );
                return Err(Refused(text).into());
            }
            tried => tried.with_context(|| check)?,
        }
    }
    Ok(())
}

/// The oid of the catalog's table of constraints.
const PG_CONSTRAINT: i64 = 2606;

/// The condition for a constraint `o`. Members of extensions, as those of citext, read no tables.
macro_rules! calls {
    () => {
        "o.contype = 'c'
      and o.convalidated
      and o.conislocal
      and exists (
          select
          from pg_depend d
          left join pg_operator x on d.refclassid = 'pg_operator'::regclass and x.oid = d.refobjid
          join pg_proc p on p.oid = case d.refclassid when 'pg_proc'::regclass then d.refobjid else x.oprcode::oid end
          join pg_language l on l.oid = p.prolang
          where d.classid = 'pg_constraint'::regclass
            and d.objid = o.oid
            and p.oid >= 16384
            and l.lanname not in ('c', 'internal')
      )"
    };
}
pub(super) use calls;

/// A check of a parent goes and comes before those of its children.
const CALLING: &str = concat!(
    r"
    select
        o.oid::int8 as oid,
        format('alter table %s drop constraint if exists %I', o.conrelid::regclass, o.conname) as drop,
        format('alter table %s add constraint %I %s not valid', o.conrelid::regclass, o.conname, pg_get_constraintdef(o.oid))
            || coalesce(
                format('; comment on constraint %I on %s is ', o.conname, o.conrelid::regclass)
                    || quote_literal(obj_description(o.oid, 'pg_constraint')),
                ''
            ) as add
    from pg_constraint o
    where o.conrelid = any ($1)
      and ",
    calls!(),
    "
    order by o.coninhcount, o.conrelid, o.conname"
);

const VALID: &str = r"
    select format('%s constraint %I', o.conrelid::regclass, o.conname)
    from pg_constraint o
    where o.conrelid = any ($1)
      and o.contype = 'c'
      and o.convalidated";

const NOT_VALID: &str = r"
    select t.text
    from pg_constraint o
    cross join lateral (select format('%s constraint %I', o.conrelid::regclass, o.conname)) t (text)
    where o.conrelid = any ($1)
      and o.contype = 'c'
      and not o.convalidated
      and t.text = any ($2)
    order by o.coninhcount, t.text";
