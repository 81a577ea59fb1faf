//! An event trigger refuses changes of the tables' definitions during a move. Only a superuser may create one; without it,
//! the comparison of the definitions before each step finds a change.

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection, query_scalar};

use super::side::Database;
use super::{relations, shape};
use crate::database::execute;
use crate::names::{Qualified, quote_literal};

/// Creates the event trigger for the tables and their partitions, if splitctl's role may. After each command it compares the
/// definitions with those of this moment.
pub async fn guard(database: &mut Database, owner_name: &str, tables: &[Qualified]) -> Result<()> {
    if !database.superuser {
        return Ok(());
    }
    let known = read(&mut database.connection, tables).await?;
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let listed = relations::OIDS.replace("$1", &quote_array(&schemas)).replace("$2", &quote_array(&names));
    // What the database holds comes last, so nothing in it is taken for a placeholder. Then the whole body is quoted.
    let body = BODY
        .replace("{definitions}", &definitions().replace("$1", "moving"))
        .replace("{oids}", &listed)
        .replace("{known}", &quote_array(&known));
    let statements = CREATE.replace("{name}", &name(owner_name)).replace("{body}", &quote_literal(&body));
    Ok(execute(&mut database.connection, statements).await?)
}

/// Reads the definitions that the guard compares, as lines.
pub async fn read(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>, sqlx::Error> {
    let oids = relations::oids(connection, tables).await?;
    query_scalar(AssertSqlSafe(definitions())).bind(oids).fetch_all(connection).await
}

fn definitions() -> String {
    DEFINITIONS.replace("{shape}", shape::SHAPE)
}

/// Drops the event trigger.
pub async fn unguard(database: &mut Database, owner_name: &str) -> Result<()> {
    if !database.superuser {
        return Ok(());
    }
    let name = name(owner_name);
    let drop = format!("drop event trigger if exists {name}; drop function if exists splitctl.{name}()");
    Ok(execute(&mut database.connection, drop).await?)
}

fn name(owner_name: &str) -> String {
    format!("splitctl_definitions_{owner_name}")
}

fn quote_array<T: AsRef<str>>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(|value| quote_literal(value.as_ref())).collect();
    format!("array[{}]::text[]", values.join(", "))
}

const BODY: &str = include_str!("definitions.sql");

const CREATE: &str = r"
    begin;
    create or replace function splitctl.{name}()
    returns event_trigger
    language plpgsql
    set search_path = pg_catalog
    as {body};
    drop event trigger if exists {name};
    create event trigger {name} on ddl_command_end execute function splitctl.{name}();
    commit";

/// The shape of the tables, what a read of them includes by inheritance, and what else would stop the stream: types inside
/// other types, a lost replica identity, a table that is no longer logged, and triggers that fire for copied changes. A
/// fault may go, and must not be added.
const DEFINITIONS: &str = r"
    with recursive types (oid) as (
        select a.atttypid
        from pg_attribute a
        where a.attrelid = any ($1)
          and a.attnum > 0
          and not a.attisdropped
        union
        select further.oid
        from types y
        join pg_type t on t.oid = y.oid
        cross join lateral (
            select t.typelem
            union all
            select t.typbasetype
            union all
            select r.rngsubtype from pg_range r where r.rngtypid = t.oid
            union all
            select a.atttypid
            from pg_attribute a
            where a.attrelid = t.typrelid
              and a.attnum > 0
              and not a.attisdropped
        ) further (oid)
        where further.oid <> 0
    )
    select s.entry
    from ({shape}) s (entry)
    union
    select format('type %s has the value %L at %s', e.enumtypid::regtype, e.enumlabel, e.enumsortorder)
    from pg_enum e
    where e.enumtypid in (select oid from types)
    union
    select format('type %s has the attribute %s of %s', t.oid::regtype, a.attname, format_type(a.atttypid, a.atttypmod))
    from pg_type t
    join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where t.oid in (select oid from types)
    union
    select format('domain %s has the constraint %s: %s', o.contypid::regtype, o.conname, pg_get_constraintdef(o.oid))
    from pg_constraint o
    where o.contypid in (select oid from types)
    union
    select format('table %s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass)
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid and not c.relispartition
    where i.inhrelid = any ($1)
       or i.inhparent = any ($1)
    union
    select format('fault: table %s has no replica identity', c.oid::regclass)
    from pg_class c
    where c.oid = any ($1)
      and c.relreplident = 'n'
    union
    select format('fault: table %s is not logged', c.oid::regclass)
    from pg_class c
    where c.oid = any ($1)
      and c.relpersistence <> 'p'
    union
    select format('fault: trigger %s on %s fires for copied changes', t.tgname, t.tgrelid::regclass)
    from pg_trigger t
    where t.tgrelid = any ($1)
      and t.tgenabled in ('A', 'R')
      and not t.tgisinternal";
