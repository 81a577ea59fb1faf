//! Tables that no owner has, as the manifest lists them. The copy brings them to a target that has none; a target with a
//! history of its own keeps it. Nothing ever drops them from the source.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::relations::{self, Table};
use super::schema::pg_dump;
use super::side::Database;
use super::verify::hash_rows;
use super::{Move, crash_point, roles, sequences};
use crate::database::{self, execute};
use crate::exit::require;
use crate::manifest::Owner;
use crate::names::Qualified;

/// The tables that the source has and the target lacks: the copy creates them.
pub async fn choose(source: &mut Database, target: &mut Database, listed: &[Qualified]) -> Result<Vec<Qualified>> {
    let there = relations::tables(&mut target.connection, listed).await?;
    let here = relations::tables(&mut source.connection, listed).await?.into_iter().map(|table| table.name);
    Ok(here.filter(|name| there.iter().all(|table| table.name != *name)).collect())
}

/// Says what the copy will do with each table.
pub async fn describe(the_move: &mut Move) -> Result<Vec<String>> {
    let Move { manifest, source, target, .. } = the_move;
    let copied = choose(source, target, &manifest.unowned).await?;
    let known = relations::tables(&mut source.connection, &manifest.unowned).await?;
    let describe = |Table { name, .. }: &Table| match copied.contains(name) {
        true => format!("{name}: no owner has it, so it is copied once, and stays in the source"),
        false => format!("{name}: no owner has it; the target has one of its own, which stays as it is"),
    };
    Ok(known.iter().map(describe).collect())
}

/// Copies the tables that the move brings, and copies again those that have changed since.
pub async fn copy(the_move: &mut Move) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    let brought = &state.begun.unowned;
    for table in relations::tables(&mut source.connection, brought).await? {
        let lists = std::slice::from_ref(&table.name);
        let definitions = if relations::tables(&mut target.connection, lists).await?.is_empty() {
            dump(source, target.version, &table.name).await?
        } else if hash_rows(&mut source.connection, &table).await? == hash_rows(&mut target.connection, &table).await? {
            continue;
        } else {
            format!("delete from {}", table.name.sql())
        };
        copy_one(source, target, owner, &table, &definitions)
            .await
            .with_context(|| format!("{}: the table cannot be copied to the target", table.name))?;
        crash_point("unowned table copied");
    }
    Ok(())
}

/// Refuses the first switch if a table has changed since it was copied. Later, each side has a history of its own.
///
/// # Errors
/// [`crate::exit::Refused`] with the tables that differ.
pub async fn check(the_move: &mut Move) -> Result<()> {
    let Move { owner_name, source, target, state, .. } = the_move;
    if state.switch.way_back.is_some() {
        return Ok(());
    }
    let mut differing = Vec::new();
    for table in relations::tables(&mut source.connection, &state.begun.unowned).await? {
        if hash_rows(&mut source.connection, &table).await? != hash_rows(&mut target.connection, &table).await? {
            differing.push(table.name.to_string());
        }
    }
    require!(
        differing.is_empty(),
        "{}: the rows on the target are not those of the source, where a migration has run since the copy: run it on the \
         target too, or copy them again with `splitctl copy {owner_name}`",
        differing.join(", ")
    );
    Ok(())
}

/// The statement that drops from the target what the copy has brought. It is empty if that is nothing.
pub fn dropping(brought: &[Qualified]) -> String {
    if brought.is_empty() { String::new() } else { format!("drop table if exists {}", relations::list(brought)) }
}

/// The definition of a table, with its indexes, sequences and comments.
async fn dump(source: &Database, version: i32, table: &Qualified) -> Result<String> {
    let program = pg_dump::find(source.version).await?;
    let statements = pg_dump::definition(&program, &source.url, table, version).await?;
    let schema = crate::names::quote_ident(&table.schema);
    Ok(format!("create schema if not exists {schema}; {statements}"))
}

/// Copies definitions, rows, sequences and rights in one transaction on the target.
async fn copy_one(
    source: &mut Database,
    target: &mut Database,
    owner: &Owner,
    table: &Table,
    definitions: &str,
) -> Result<()> {
    let lists = std::slice::from_ref(&table.name);
    let of_the_table = Owner { tables: lists.to_vec(), ..Owner::default() };
    let sequences = sequences::list(&mut source.connection, &of_the_table).await?;
    let reading = sequences::reading(&mut source.connection, &sequences).await?;
    let relations = [lists, &sequences].concat();
    let rights = relations::select::<Right>(&mut source.connection, RIGHTS, &relations).await?;
    // A dump changes settings of its session and does not reset them.
    let mut there = target.connect().await?;
    execute(&mut there, format!("begin; {definitions}")).await?;
    copy_rows(&mut source.connection, &mut there, table).await?;
    sequences::set_ahead(&mut source.connection, &mut there, reading.as_deref()).await?;
    for Right { statement, role, is_owner } in rights {
        let role = role.as_deref().map(|role| owner.on_target(role));
        let exists = query_scalar("select $1 is null or exists (select from pg_roles where rolname = $1)").bind(role);
        if exists.fetch_one(&mut there).await? && (target.superuser || !is_owner) {
            execute(&mut there, roles::on_target(&statement, &owner.owned_by)).await?;
        }
    }
    Ok(execute(&mut there, "commit").await?)
}

async fn copy_rows(source: &mut PgConnection, target: &mut PgConnection, table: &Table) -> Result<()> {
    let names: Vec<String> =
        query_as(COLUMNS).bind(table.name.sql()).fetch_all(&mut *source).await?.into_iter().map(|(name,)| name).collect();
    if names.is_empty() {
        bail!("{}: the table has no columns", table.name);
    }
    let columns = names.join(", ");
    let query = format!("select {columns} from {}", table.rows());
    database::copy_rows(source, &query, target, &format!("{} ({columns})", table.name.sql()), |_, _| Duration::ZERO).await?;
    Ok(())
}

/// A statement that gives a relation to its owner, or a role a right on it.
#[derive(FromRow)]
struct Right {
    statement: String,
    role: Option<String>,
    is_owner: bool,
}

const COLUMNS: &str = r"
    select quote_ident(attname)
    from pg_attribute
    where attrelid = to_regclass($1)
      and attnum > 0
      and not attisdropped
      and attgenerated = ''
    order by attnum";

const RIGHTS: &str = r"
    select
        format('alter table %s owner to %I', c.oid::regclass, r.rolname) as statement,
        r.rolname::text as role,
        true as is_owner
    from pg_class c
    join pg_roles r on r.oid = c.relowner
    where c.oid = any ($1)
      and c.relkind in ('r', 'p')
    union all
    select
        format(
            'grant %s on %s %s to %s',
            g.privilege_type,
            case c.relkind when 'S' then 'sequence' else 'table' end,
            c.oid::regclass,
            coalesce(quote_ident(r.rolname), 'public')
        ),
        r.rolname::text,
        false
    from pg_class c
    cross join lateral aclexplode(c.relacl) g
    left join pg_roles r on r.oid = g.grantee
    where c.oid = any ($1)
      and g.grantee <> c.relowner
      and (g.grantee = 0 or r.oid is not null)
    order by 3 desc";
