//! Checks that call functions. Such a function may read other tables, so a row may pass only when all rows are there.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::{FromRow, query, query_as};

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
    /// Takes it from a table that was just created with it, before partitions are attached: that reads checks.
    drop: String,
    /// Brings it back with its comment; no row is looked at. `None` if a parent's brings it.
    add: Option<String>,
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

/// Statements that take the checks off the tables, and that bring them back.
pub(super) fn statements(checks: &[Calling]) -> (String, String) {
    let drop: Vec<&str> = checks.iter().map(|check| check.drop.as_str()).collect();
    let add: Vec<&str> = checks.iter().filter_map(|check| check.add.as_deref()).collect();
    (drop.join("; "), add.join("; "))
}

/// A check that is valid in the source, and not on the target.
#[derive(FromRow)]
struct NotValid {
    check: String,
    statement: String,
}

/// Makes those checks valid on the target that are so in the source. A superuser writes it into the catalog, as `pg_dump`
/// does for an upgrade: `verify` compares the rows, so no function of the application has to run with a superuser's rights,
/// and a check that old rows do not pass any more is as it was. Others have the server look at all rows.
///
/// # Errors
/// [`Refused`] with a check that rows do not pass, or that splitctl's role may not try.
pub async fn validate(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<()> {
    let valid = relations::select_lines(&mut source.connection, VALID, &owner.tables).await?;
    if target.superuser {
        query(CALL_VALID).bind(valid).execute(&mut target.connection).await?;
        return Ok(());
    }
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
    r#"
    select
        o.oid::int8 as oid,
        format('alter table %s drop constraint if exists %s', t.quoted, t.check) as drop,
        case
            when o.conislocal then format('alter table %s add constraint %s %s not valid', t.quoted, t.check, t.definition)
                || coalesce(
                    format('; comment on constraint %s on %s is ', t.check, t.quoted)
                        || quote_literal(obj_description(o.oid, 'pg_constraint')),
                    ''
                )
        end as add
    from pg_constraint o
    join pg_class c on c.oid = o.conrelid
    join pg_namespace n on n.oid = c.relnamespace
    -- A newer server may have more words that must be quoted.
    cross join lateral (
        select
            format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) as quoted,
            format('"%s"', replace(o.conname, '"', '""')) as check,
            pg_get_constraintdef(o.oid) as definition
    ) t
    where o.conrelid = any ($1)
      and "#,
    calls!(),
    "
    order by (select max(d.depth) from depths d where d.relation = o.conrelid), o.conrelid, o.conname"
);

/// The names of a check `o`, without the quotes that depend on the server.
macro_rules! names {
    () => {
        r"
    cross join lateral (
        select json_build_array(n.nspname, c.relname, o.conname)::text
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where c.oid = o.conrelid
    ) t (names)"
    };
}

const VALID: &str = concat!(
    "
    select t.names
    from pg_constraint o",
    names!(),
    "
    where o.conrelid = any ($1)
      and o.contype = 'c'
      and o.convalidated"
);

const CALL_VALID: &str = concat!(
    "
    update pg_constraint u
    set convalidated = true
    from pg_constraint o",
    names!(),
    "
    where u.oid = o.oid
      and o.contype = 'c'
      and not o.convalidated
      and t.names = any ($1)"
);

const NOT_VALID: &str = concat!(
    depths!(),
    r"
    select
        format('constraint %I of %s', o.conname, o.conrelid::regclass) as check,
        format('alter table %s validate constraint %I', o.conrelid::regclass, o.conname) as statement
    from pg_constraint o",
    names!(),
    "
    where o.conrelid = any ($1)
      and o.contype = 'c'
      and not o.convalidated
      and t.names = any ($2)
    order by (select max(d.depth) from depths d where d.relation = o.conrelid), o.conrelid, o.conname"
);
