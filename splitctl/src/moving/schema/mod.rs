//! The tables' definitions, which `pg_dump` brings to the target, with owners and rights, in its own order.

pub mod pg_dump;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::inventory::{Id, Inventory, Object};
use super::side::Database;
use super::{relations, sequences};
use crate::database::execute;
use crate::manifest::Owner;
use crate::names::{Qualified, quote_ident};
use pg_dump::Entry;

/// The statements that create on the target what the inventory moves.
#[derive(Debug, Default)]
pub struct Definitions {
    /// What the target lacks: schemas, types, functions, tables, views, sequences; and the tables' keys and indexes.
    pub before_rows: String,
    /// Foreign keys among the tables, triggers, policies, rules, statistics, constraints that are not valid, and comments
    /// on them.
    pub after_rows: String,
}

/// Dumps the definitions from the source.
pub async fn dump(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<Definitions> {
    let program = pg_dump::find(source.version).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("definitions");
    let connection = &mut source.connection;
    let inventory = Inventory::read(connection, owner).await?;
    let lacking: BTreeSet<Id> = inventory.lacking(&mut target.connection).await?.into_iter().map(Object::id).collect();
    // A table that is left out is not locked either.
    let relations = inventory.moving().filter(|object| object.class == PG_CLASS);
    let relations: Vec<i64> = relations.map(|object| object.oid).collect();
    let stay: Vec<String> = query_scalar(STAYING).bind(relations).fetch_all(&mut *connection).await?;
    let choice: Vec<String> = stay.iter().map(|relation| format!("--exclude-table={relation}")).collect();
    pg_dump::dump(&program, &source.url, &archive, &choice).await?;
    let keys: Vec<Id> = query_as(KEYS).fetch_all(connection).await?;
    let chosen = Chosen::of(pg_dump::contents(&program, &archive).await?, &inventory, &lacking, &keys.into_iter().collect());
    let (mut before, after): (Vec<&Entry>, Vec<&Entry>) =
        chosen.entries.iter().partition(|entry| !chosen.later.contains(&entry.number));
    before.retain(|entry| chosen.is_lacking(entry));
    let (version, owners) = (target.version, &owner.owned_by);
    Ok(Definitions {
        before_rows: pg_dump::statements(&program, &archive, &before, version, owners).await?,
        after_rows: pg_dump::statements(&program, &archive, &after, version, owners).await?,
    })
}

/// The kinds and names of what the copy creates on the target besides tables and views.
pub async fn list_lacking(
    source: &mut Database,
    target: &mut Database,
    owner: &Owner,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let inventory = Inventory::read(&mut source.connection, owner).await?;
    let mut lacking = inventory.lacking(&mut target.connection).await?;
    lacking.retain(|object| !object.holds_rows);
    Ok(lacking.into_iter().map(|object| (object.kind.clone(), object.identity.clone())).collect())
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

/// The entries of an archive that move.
struct Chosen {
    entries: Vec<Entry>,
    /// The numbers of the entries that come after the rows.
    later: BTreeSet<i64>,
    /// The numbers of the entries whose objects the target has.
    present: BTreeSet<i64>,
}

impl Chosen {
    /// An entry without an object of its own moves if all that it depends on moves. `keys` are the indexes and the
    /// constraints that have one: the stream finds rows by them, so they come before it. Rights on relations are granted by
    /// the switch, and those on schemas by [`grant_schemas`].
    fn of(entries: Vec<Entry>, inventory: &Inventory, lacking: &BTreeSet<Id>, keys: &BTreeSet<Id>) -> Self {
        let moving: BTreeSet<Id> = inventory.moving().map(|object| object.id()).collect();
        let alone: BTreeSet<Id> = inventory.moving().filter(|object| !object.is_part).map(|object| object.id()).collect();
        let (mut chosen, mut later, mut present) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut granted_later, mut indexed) = (BTreeSet::new(), BTreeSet::new());
        let any = |numbers: &BTreeSet<i64>, entry: &Entry| entry.depends.iter().any(|number| numbers.contains(number));
        let mut kept = Vec::new();
        for entry in entries {
            let (number, object) = (entry.number, entry.object);
            let has_object = object.0 != 0;
            if [PG_CLASS, PG_NAMESPACE].contains(&object.0) {
                granted_later.insert(number);
            }
            let follows = || !entry.depends.is_empty() && entry.depends.iter().all(|number| chosen.contains(number));
            let moves = if has_object { moving.contains(&object) } else { follows() };
            if !moves || entry.is_acl() && any(&granted_later, &entry) {
                continue;
            }
            if keys.contains(&object) {
                indexed.insert(number);
            }
            let is_later = match entry.is_post_data {
                true if has_object => !keys.contains(&object),
                true => !any(&indexed, &entry),
                false => any(&later, &entry),
            };
            if is_later {
                later.insert(number);
            }
            if if has_object { alone.contains(&object) && !lacking.contains(&object) } else { any(&present, &entry) } {
                present.insert(number);
            }
            chosen.insert(number);
            kept.push(entry);
        }
        Self { entries: kept, later, present }
    }

    fn is_lacking(&self, entry: &Entry) -> bool {
        !self.present.contains(&entry.number)
    }
}

/// Runs one part on the target, in one transaction.
pub async fn apply(target: &Database, statements: &str) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    // A dump changes settings of its session and does not reset them.
    let mut connection = target.connect().await?;
    let applied = execute(&mut connection, format!("begin; {statements}; commit")).await;
    applied.context("the tables cannot be created on the target")
}

/// Whether the target has what comes after the rows. It is created in one transaction, so one object of it is enough.
pub async fn is_finished(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<bool> {
    let inventory = Inventory::read(&mut source.connection, owner).await?;
    let later: BTreeSet<Id> = query_as::<_, Id>(LATER).fetch_all(&mut source.connection).await?.into_iter().collect();
    for object in inventory.moving().filter(|object| later.contains(&object.id())) {
        if object.is_in(&mut target.connection).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fills the materialised views of the target, in the order of their dependencies, as their owners. They may read the
/// tables for the moment of one transaction.
pub async fn refresh(target: &mut Database, owner: &Owner) -> Result<()> {
    let relations = owner.relations();
    for View { view, owner } in relations::select::<View>(&mut target.connection, UNFILLED, &relations).await? {
        let (list, role) = (relations::list(&relations), quote_ident(&owner));
        let statements = format!(
            "begin; grant select on {list} to {role}; refresh materialized view {view}; \
             revoke select on {list} from {role}; commit"
        );
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

/// Grants the rights on schemas as in the source, to those roles that the target has.
pub async fn grant_schemas(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<()> {
    let inventory = Inventory::read(&mut source.connection, owner).await?;
    let schemas: Vec<i64> = inventory.moving().filter(|object| object.kind == "schema").map(|object| object.oid).collect();
    let given: Vec<Given> = query_as(GIVEN).bind(schemas).fetch_all(&mut source.connection).await?;
    for Given { schema, privilege, role } in given {
        let grant = query_scalar::<_, String>(LACKING_GRANT).bind(schema).bind(privilege).bind(role);
        if let Some(grant) = grant.fetch_optional(&mut target.connection).await? {
            execute(&mut target.connection, grant).await?;
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct Given {
    schema: String,
    privilege: String,
    /// `None` for all roles.
    role: Option<String>,
}

#[derive(FromRow)]
struct View {
    view: String,
    owner: String,
}

/// The oid of the catalog's table of relations.
const PG_CLASS: i64 = 1259;
/// The oid of the catalog's table of schemas.
const PG_NAMESPACE: i64 = 2615;

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
const STAYING: &str = r"
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      and c.oid >= 16384
      and c.oid <> all ($1::int8[]::oid[])
      and n.nspname !~ '^pg_'
      and n.nspname not in ('information_schema', 'splitctl')";

const KEYS: &str = r"
    select 'pg_class'::regclass::oid::int8, indexrelid::int8
    from pg_index
    union all
    select 'pg_constraint'::regclass::oid::int8, oid::int8
    from pg_constraint
    where contype in ('p', 'u', 'x')";

const LATER: &str = r"
    select 'pg_constraint'::regclass::oid::int8, oid::int8
    from pg_constraint
    where contype = 'f'
       or (contype = 'c' and not convalidated)
    union all
    select 'pg_trigger'::regclass::oid::int8, oid::int8
    from pg_trigger
    where not tgisinternal
    union all
    select 'pg_policy'::regclass::oid::int8, oid::int8
    from pg_policy
    union all
    select 'pg_statistic_ext'::regclass::oid::int8, oid::int8
    from pg_statistic_ext
    union all
    select 'pg_rewrite'::regclass::oid::int8, oid::int8
    from pg_rewrite
    where rulename <> '_RETURN'";

/// A materialised view may read another one, or a view that does.
const UNFILLED: &str = views_by_depth!(
    "select c.oid::regclass::text as view, pg_get_userbyid(c.relowner)::text as owner",
    "and c.relkind = 'm' and not c.relispopulated order by (select max(d.depth) from depths d where d.view = c.oid), c.oid"
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

const GIVEN: &str = r"
    select
        n.nspname::text as schema,
        a.privilege_type as privilege,
        case when a.grantee <> 0 then pg_get_userbyid(a.grantee)::text end as role
    from pg_namespace n
    cross join lateral aclexplode(n.nspacl) a
    where (n.oid = any ($1::int8[]::oid[]) or n.nspname = 'public')
      and a.grantee <> n.nspowner
      and (a.grantee <> 0 or a.privilege_type = 'USAGE')
    order by 1, 2, 3";

const LACKING_GRANT: &str = r"
    select format('grant %s on schema %I to %s', $2, n.nspname, coalesce(quote_ident($3), 'public'))
    from pg_namespace n
    where n.nspname = $1
      and ($3 is null or exists (select from pg_roles r where r.rolname = $3))
      and not has_schema_privilege(coalesce($3, 'public'), n.oid, $2)";
