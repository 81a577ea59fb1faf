//! Checks that call functions. Such a function may read other tables, so a row may pass only when all rows are there.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::{FromRow, query_as};

use crate::database::{execute, sqlstate};
use crate::exit::Refused;
use crate::manifest::Owner;
use crate::moving::inventory::{Id, Inventory};
use crate::moving::relations;
use crate::moving::side::Database;
use crate::names::quote_literal;

/// A check that is valid in the source, and that calls a function of the database.
#[derive(FromRow)]
pub(super) struct Calling {
    oid: i64,
    /// Takes it from a table that was just created with it.
    drop: String,
    /// Brings it back with its comment; no row is looked at.
    add: String,
}

impl Calling {
    pub fn id(&self) -> Id {
        (PG_CONSTRAINT, self.oid)
    }
}

/// Those of the tables that move.
pub(super) async fn read(source: &mut Database, owner: &Owner, inventory: &Inventory) -> Result<Vec<Calling>, sqlx::Error> {
    let moving: BTreeSet<Id> = inventory.moving().map(|object| object.id()).collect();
    let mut checks: Vec<Calling> = relations::select(&mut source.connection, CALLING, &owner.tables).await?;
    checks.retain(|check| moving.contains(&check.id()));
    Ok(checks)
}

/// Statements that take the checks off the tables, and that bring them back. As a superuser, splitctl then calls those valid
/// that are so in the source, as `pg_dump` writes this catalog for an upgrade: `verify` compares the rows, so no function of
/// the application has to run with a superuser's rights, and a check that old rows do not pass any more is as it was.
pub(super) async fn statements(
    source: &mut Database,
    target: &Database,
    owner: &Owner,
    checks: &[Calling],
) -> Result<(String, String), sqlx::Error> {
    let join = |text: fn(&Calling) -> &str| checks.iter().map(text).collect::<Vec<_>>().join("; ");
    let (drop, mut add) = (join(|check| &check.drop), join(|check| &check.add));
    if target.superuser && !checks.is_empty() {
        let valid = relations::select_lines(&mut source.connection, VALID, &owner.tables).await?;
        let valid: Vec<String> = valid.iter().map(|check| quote_literal(check)).collect();
        add += &format!("; {}", CALL_VALID.replace("{valid}", &valid.join(", ")));
    }
    Ok((drop, add))
}

/// A check that is valid in the source, and not on the target.
#[derive(FromRow)]
struct NotValid {
    check: String,
    statement: String,
}

/// Has a target without a superuser look at all rows for the checks that are valid in the source. The stream goes on.
///
/// # Errors
/// [`Refused`] with a check that rows do not pass, or that splitctl's role may not try.
pub async fn validate(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<()> {
    if target.superuser {
        return Ok(());
    }
    let valid = relations::select_lines(&mut source.connection, VALID, &owner.tables).await?;
    let oids = relations::oids(&mut target.connection, &owner.tables).await?;
    let left: Vec<NotValid> = query_as(NOT_VALID).bind(oids).bind(valid).fetch_all(&mut target.connection).await?;
    for NotValid { check, statement } in left {
        let Err(error) = execute(&mut target.connection, statement).await else { continue };
        let what = match sqlstate(&error).as_deref() {
            Some("23514") => "some rows do not pass it any more. Correct these rows in the source".to_owned(),
            Some("42501") => format!("splitctl's role may not try it on the target: {error}. Grant what it lacks"),
            _ => return Err(error).context(check),
        };
        return Err(Refused(format!(
            "{check}: it is valid in the source, and {what}, and repeat the command; or abort, replace the check in the \
             source by one that is `not valid`, and copy again"
        ))
        .into());
    }
    Ok(())
}

/// The oid of the catalog's table of constraints.
const PG_CONSTRAINT: i64 = 2606;

/// The condition for a constraint `o`. Members of extensions, as those of citext, read no tables.
macro_rules! calls {
    () => {
        "o.contype = 'c'
      and o.conrelid <> 0
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

/// The relations of `$1`, each with the number of its ancestors in the longest line: what holds for a parent holds for its
/// children.
macro_rules! depths {
    () => {
        r"
    with recursive depths (relation, depth) as (
        select t.oid, 0
        from unnest($1) t (oid)
        union
        select i.inhrelid, d.depth + 1
        from depths d
        join pg_inherits i on i.inhparent = d.relation
    )"
    };
}

const CALLING: &str = concat!(
    depths!(),
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
    order by (select max(d.depth) from depths d where d.relation = o.conrelid), o.conrelid, o.conname"
);

const VALID: &str = r"
    select format('constraint %I of %s', o.conname, o.conrelid::regclass)
    from pg_constraint o
    where o.conrelid = any ($1)
      and o.contype = 'c'
      and o.convalidated";

/// The statements before it in the transaction let every session forget what it knows of the tables.
const CALL_VALID: &str = "
    update pg_catalog.pg_constraint o
    set convalidated = true
    where o.contype = 'c'
      and o.conrelid <> 0
      and not o.convalidated
      and pg_catalog.format('constraint %I of %s', o.conname, o.conrelid::pg_catalog.regclass) in ({valid})";

const NOT_VALID: &str = concat!(
    depths!(),
    r"
    select
        t.shown as check,
        format('alter table %s validate constraint %I', o.conrelid::regclass, o.conname) as statement
    from pg_constraint o
    cross join lateral (select format('constraint %I of %s', o.conname, o.conrelid::regclass)) t (shown)
    where o.conrelid = any ($1)
      and o.contype = 'c'
      and not o.convalidated
      and t.shown = any ($2)
    order by (select max(d.depth) from depths d where d.relation = o.conrelid), o.conrelid, o.conname"
);
