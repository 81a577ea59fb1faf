//! Relations that depend on each other: views are filled and dropped in the order of their dependencies.

use anyhow::{Context, Result};
use sqlx::{FromRow, PgConnection};

use crate::database::execute;
use crate::manifest::Owner;
use crate::moving::side::Database;
use crate::moving::{relations, sequences};
use crate::names::{Qualified, quote_ident};

/// Fills the materialised views of the target that are filled in the source, or of these all but the ones that are filled on
/// the target, too. It follows their dependencies, and works as their owners, who may read the tables for the moment of one
/// transaction.
pub async fn refresh(source: &mut Database, target: &mut Database, owner: &Owner, filled: Filled) -> Result<()> {
    let relations = owner.relations();
    let mut views: Vec<View> = relations::select(&mut target.connection, MATERIALIZED, &relations).await?;
    let here: Vec<View> = relations::select(&mut source.connection, MATERIALIZED, &relations).await?;
    views.retain(|view| filled == Filled::Again || !view.is_filled);
    // What nobody has filled may be what nobody can fill.
    views.retain(|view| here.iter().any(|here| here.view == view.view && here.is_filled));
    for View { view, owner, is_superuser, .. } in views {
        let (list, role) = (relations::list(&relations), quote_ident(&owner));
        // A superuser's rights are not revoked before.
        let (grant, revoke) = match is_superuser {
            true => (String::new(), String::new()),
            false => (format!("grant select on {list} to {role};"), format!("revoke select on {list} from {role};")),
        };
        let statements =
            format!("begin; set local search_path to default; {grant} refresh materialized view {view}; {revoke} commit");
        if let Err(error) = execute(&mut target.connection, statements).await {
            execute(&mut target.connection, "rollback").await?;
            return Err(error).with_context(|| format!("{view}: the materialised view cannot be refreshed on the target"));
        }
    }
    Ok(())
}

/// Builds the statements that drop the tables, the owner's views, the functions that need the tables, and the sequences that
/// stand alone and that the tables use.
pub async fn dropping(connection: &mut PgConnection, tables: &[Qualified], views: &[Qualified]) -> Result<String> {
    let mut statements: Vec<String> = relations::select_lines(connection, DROP_VIEWS, views).await?;
    let relations = [tables, views].concat();
    let sequences: Vec<Qualified> = sequences::list_recorded(connection, &relations).await?;
    statements.extend(relations::select_lines(connection, DROP_FUNCTIONS, &relations).await?);
    statements.push(format!("drop table {}", relations::list(tables)));
    if !sequences.is_empty() {
        // A sequence of a column is gone with its table.
        statements.push(format!("drop sequence if exists {}", relations::list(&sequences)));
    }
    Ok(statements.join("; "))
}

/// Drops what the copy created besides tables and views, unless something on the target has come to need it.
pub async fn drop_made(target: &mut Database, made: &[(String, String)]) -> Result<()> {
    let mut left: Vec<String> = made.iter().map(|(kind, name)| format!("drop {kind} if exists {name}")).collect();
    // An object is dropped after those that depend on it.
    loop {
        let mut refused = Vec::new();
        for statement in &left {
            if execute(&mut target.connection, statement.clone()).await.is_err() {
                refused.push(statement.clone());
            }
        }
        if refused.is_empty() || refused.len() == left.len() {
            return Ok(());
        }
        left = refused;
    }
}

/// What becomes of materialised views that are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// They stay as they are.
    Stay,
    /// They are filled again.
    Again,
}

#[derive(FromRow)]
struct View {
    view: String,
    owner: String,
    is_superuser: bool,
    is_filled: bool,
}

/// A query over the relations `c` of `$1`, with the number of views that each view stands on.
macro_rules! views_by_depth {
    ($columns:literal, $rest:literal) => {
        concat!(
            r"
    with recursive
    reads as (
        select distinct r.ev_class as view, d.refobjid as read
        from pg_rewrite r
        join pg_depend d
          on d.classid = 'pg_rewrite'::regclass
         and d.objid = r.oid
         and d.refclassid = 'pg_class'::regclass
         and d.refobjid <> r.ev_class
    ),
    depths (view, depth) as (
        select oid, 0 from pg_class where oid = any ($1)
        union
        select r.view, d.depth + 1
        from depths d
        join reads r on r.read = d.view
        join pg_class c on c.oid = r.view and c.relkind in ('v', 'm')
    )
    ",
            $columns,
            "
    from pg_class c
    where c.oid = any ($1)
      ",
            $rest
        )
    };
}

/// A materialised view may read another one, or a view that does.
const MATERIALIZED: &str = views_by_depth!(
    "select
        c.oid::regclass::text as view,
        pg_get_userbyid(c.relowner)::text as owner,
        (select r.rolsuper from pg_roles r where r.oid = c.relowner) as is_superuser,
        c.relispopulated as is_filled",
    "and c.relkind = 'm' order by (select max(d.depth) from depths d where d.view = c.oid), c.oid"
);

const DROP_VIEWS: &str = views_by_depth!(
    "select format('drop %s %s', case c.relkind when 'm' then 'materialized view' else 'view' end, c.oid::regclass)",
    "and c.relkind in ('v', 'm') order by (select max(d.depth) from depths d where d.view = c.oid) desc, c.oid"
);

/// Functions whose parameters or results have the type of a table, or whose bodies depend on one. If only parts of the
/// tables use such a function, as a policy does, those go with it.
const DROP_FUNCTIONS: &str = r"
    select distinct format(
        'drop routine if exists %s%s',
        d.objid::regprocedure,
        case
            when exists (
                select
                from pg_depend u
                where u.refclassid = 'pg_proc'::regclass
                  and u.refobjid = d.objid
                  and u.deptype = 'n'
                  and not exists (
                      select
                      from pg_depend p
                      where p.classid = u.classid
                        and p.objid = u.objid
                        and p.refclassid = 'pg_class'::regclass
                        and p.refobjid = any ($1)
                        and p.deptype in ('a', 'i')
                  )
            ) then ''
            else ' cascade'
        end
    )
    from pg_depend d
    where d.classid = 'pg_proc'::regclass
      and d.deptype = 'n'
      and (
          (d.refclassid = 'pg_class'::regclass and d.refobjid = any ($1))
          or (
              d.refclassid = 'pg_type'::regclass
              and d.refobjid in (
                  select x.oid
                  from pg_class c
                  join pg_type t on t.oid = c.reltype
                  join pg_type x on x.oid in (t.oid, t.typarray)
                  where c.oid = any ($1)
              )
          )
      )";
