//! Couplings by functions: triggers, expressions of tables, functions across owners, and functions that run with their
//! owner's rights.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{PgConnection, query_as};

use super::body;
use super::catalog::{Catalog, RelationKind, in_user_schemas};
use super::finding::{Finding, Kind};
use super::ownership::Ownership;
use super::references::{part, shared};
use crate::names::Qualified;

#[derive(sqlx::FromRow)]
struct Row {
    oid: i64,
    #[sqlx(flatten)]
    name: Qualified,
    arguments: String,
    body: String,
    /// The dependencies that Postgres records: all of them for a body of `begin atomic`, none for a body that is a text.
    depends: Vec<i64>,
    definer: bool,
    is_trigger: bool,
    /// The manifest's roles that may call it.
    callers: Vec<String>,
}

/// A table's use of a function.
#[derive(sqlx::FromRow)]
struct Use {
    function: i64,
    table: i64,
    /// The oid of the trigger; 0 for other parts.
    trigger: i64,
    /// The trigger, column, constraint or other part of the table that calls it.
    name: String,
}

/// A function, and the relations that it uses, itself or through functions that it calls.
pub struct Touching {
    /// Its oid.
    pub oid: i64,
    /// Its name and the types of its arguments.
    pub shown: String,
    /// The oids of the relations.
    pub relations: BTreeSet<i64>,
}

/// All functions, and what they use.
pub async fn touching(connection: &mut PgConnection, catalog: &Catalog) -> Result<Vec<Touching>> {
    let functions: Vec<Row> = query_as(FUNCTIONS).bind(Vec::<String>::new()).fetch_all(connection).await?;
    let mut touched = touched(&functions, catalog);
    let of =
        |row: &Row| Touching { oid: row.oid, shown: shown(row), relations: touched.remove(&row.oid).unwrap_or_default() };
    Ok(functions.iter().map(of).collect())
}

/// All couplings by functions. `roles` holds owners by role.
pub async fn findings(
    connection: &mut PgConnection,
    catalog: &Catalog,
    owners: &Ownership,
    roles: &BTreeMap<&str, &str>,
) -> Result<Vec<Finding>> {
    let names: Vec<&str> = roles.keys().copied().collect();
    let functions: Vec<Row> = query_as(FUNCTIONS).bind(&names).fetch_all(&mut *connection).await?;
    let uses: Vec<Use> = query_as(USES).fetch_all(connection).await?;
    let touched = touched(&functions, catalog);
    let mut findings = Vec::new();
    let mut called_by_triggers = BTreeSet::new();
    let mut tables_of: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for Use { function, table, trigger, name } in &uses {
        let is_trigger = *trigger != 0;
        let (Some(touched), Some(owner)) = (touched.get(function), owners.get(*table)) else { continue };
        tables_of.entry(*function).or_default().insert(*table);
        if is_trigger {
            called_by_triggers.insert(*function);
        }
        if let Some(to) = owners.others(owner, touched.iter().copied()) {
            let used = foreign(catalog, owners, owner, touched);
            let function = functions.iter().find(|row| row.oid == *function).map(shown).unwrap_or_default();
            let is_view = catalog.relations[table].kind == RelationKind::View;
            let object = if is_view { catalog.shown(*table) } else { part(catalog, *table, name) };
            let kind = if is_trigger { Kind::Trigger } else { Kind::Default };
            findings.push(Finding::new(kind, object, owner, &to, format!("calls {function}, which uses {used}")));
        }
    }
    for function in &functions {
        let touched = &touched[&function.oid];
        // The findings of triggers cover their functions.
        if !called_by_triggers.contains(&function.oid) {
            findings.extend(across(function, touched, catalog, owners, roles));
        }
        if function.definer && !function.is_trigger {
            findings.extend(with_owners_rights(function, touched, owners, roles));
        }
        if let Some((from, to)) = tables_of.get(&function.oid).and_then(|tables| shared(owners, tables)) {
            let detail = format!("tables of {from} and {to} call {}", shown(function));
            findings.push(Finding::new(Kind::SharedFunction, shown(function), &from, &to, detail).warning());
        }
    }
    // A default may call the same function twice.
    findings.sort_by(|a, b| a.id.cmp(&b.id));
    findings.dedup_by(|a, b| a.id == b.id);
    Ok(findings)
}

fn shown(function: &Row) -> String {
    format!("{}({})", function.name, function.arguments)
}

/// The relations that each function uses, itself or through functions that it calls.
fn touched(functions: &[Row], catalog: &Catalog) -> BTreeMap<i64, BTreeSet<i64>> {
    let names = Names::of(functions, catalog);
    let known: BTreeSet<i64> = functions.iter().map(|function| function.oid).collect();
    let (mut touched, mut calls) = (BTreeMap::new(), BTreeMap::new());
    for function in functions {
        let (mut relations, mut called) = names.used_by(function);
        relations.retain(|oid| catalog.relations.contains_key(oid));
        called.retain(|oid| known.contains(oid));
        touched.insert(function.oid, relations);
        calls.insert(function.oid, called);
    }
    // Repeated until no function gains a relation, since functions may call each other.
    loop {
        let mut grown = false;
        for (caller, called) in &calls {
            let more: BTreeSet<i64> = called.iter().flat_map(|called| touched[called].iter().copied()).collect();
            let known = touched.entry(*caller).or_default();
            let before = known.len();
            known.extend(more);
            grown |= known.len() > before;
        }
        if !grown {
            return touched;
        }
    }
}

/// The names that a body may mention.
struct Names<'a> {
    schemas: BTreeSet<&'a str>,
    columns: BTreeSet<&'a str>,
    relations: ByName<'a>,
    functions: ByName<'a>,
}

/// Objects by their names without schemas.
type ByName<'a> = BTreeMap<&'a str, Vec<(i64, &'a Qualified)>>;

impl<'a> Names<'a> {
    fn of(functions: &'a [Row], catalog: &'a Catalog) -> Self {
        let by_name = |objects: &[(i64, &'a Qualified)]| {
            let mut by_name = ByName::new();
            for (oid, name) in objects {
                by_name.entry(&name.name).or_default().push((*oid, *name));
            }
            by_name
        };
        let relations: Vec<_> = catalog.relations.values().map(|relation| (relation.oid, &relation.name)).collect();
        let functions: Vec<_> = functions.iter().map(|function| (function.oid, &function.name)).collect();
        Self {
            schemas: relations.iter().chain(&functions).map(|(_, name)| name.schema.as_str()).collect(),
            columns: catalog.relations.values().flat_map(|relation| &relation.columns).map(String::as_str).collect(),
            relations: by_name(&relations),
            functions: by_name(&functions),
        }
    }

    /// The oids of relations and of functions that a function uses. Its recorded dependencies are in both.
    fn used_by(&self, function: &Row) -> (BTreeSet<i64>, BTreeSet<i64>) {
        let mentions = body::read(&function.body, &|schema| self.schemas.contains(schema));
        let mut relations: BTreeSet<i64> = function.depends.iter().copied().collect();
        let mut called = relations.clone();
        for (name, certain) in &mentions.relations {
            // Columns often have the name of a table, such as `status` or `positions`.
            if *certain || !self.columns.contains(name.name()) {
                relations.extend(meant(&self.relations, name));
            }
        }
        for name in &mentions.functions {
            called.extend(meant(&self.functions, name));
        }
        (relations, called)
    }
}

/// The oids of the objects that a name in a body may mean.
fn meant(objects: &ByName<'_>, name: &body::Name) -> impl Iterator<Item = i64> {
    let candidates = objects.get(name.name()).into_iter().flatten();
    candidates.filter(|(_, known)| name.may_mean(known)).map(|(oid, _)| *oid)
}

/// A function that uses tables of several owners.
fn across(
    function: &Row,
    touched: &BTreeSet<i64>,
    catalog: &Catalog,
    owners: &Ownership,
    roles: &BTreeMap<&str, &str>,
) -> Option<Finding> {
    let all = owners.all(touched.iter().copied());
    // It belongs to the owner whose role alone may call it, or else to the first owner by name.
    let callers: BTreeSet<&str> = function.callers.iter().map(|role| roles[role.as_str()]).collect();
    let only = callers.first().filter(|_| callers.len() == 1).copied().filter(|owner| all.contains(*owner));
    let from = only.or(all.first().map(String::as_str))?;
    let to = owners.others(from, touched.iter().copied())?;
    let used = touched.iter().map(|&relation| catalog.shown(relation)).collect::<Vec<_>>().join(", ");
    Some(Finding::new(Kind::Function, shown(function), from, &to, format!("uses {used}")))
}

/// A function that runs with its owner's rights, so that other owners' roles use tables without rights of their own.
fn with_owners_rights(
    function: &Row,
    touched: &BTreeSet<i64>,
    owners: &Ownership,
    roles: &BTreeMap<&str, &str>,
) -> impl Iterator<Item = Finding> {
    let to = owners.all(touched.iter().copied());
    let callers: BTreeSet<&str> = function.callers.iter().map(|role| roles[role.as_str()]).collect();
    callers.into_iter().filter_map(move |from| {
        let to: Vec<&str> = to.iter().map(String::as_str).filter(|owner| *owner != from).collect();
        let detail = "runs with its owner's rights, and this owner's role may call it";
        (!to.is_empty())
            .then(|| Finding::new(Kind::DefinerFunction, shown(function), from, &to.join(", "), detail).by().warning())
    })
}

fn foreign(catalog: &Catalog, owners: &Ownership, owner: &str, relations: &BTreeSet<i64>) -> String {
    let other = |relation: &&i64| owners.get(**relation).is_some_and(|other| other != owner);
    relations.iter().filter(other).map(|&relation| catalog.shown(relation)).collect::<Vec<_>>().join(", ")
}

const FUNCTIONS: &str = in_user_schemas!(
    r"
    select
        p.oid::int8,
        n.nspname::text as schema,
        p.proname::text as name,
        oidvectortypes(p.proargtypes) as arguments,
        case when p.prosqlbody is null then p.prosrc else '' end as body,
        array(
            select d.refobjid::int8
            from pg_depend d
            where d.classid = 'pg_proc'::regclass
              and d.objid = p.oid
              and d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
        ) as depends,
        p.prosecdef as definer,
        p.prorettype = 'trigger'::regtype as is_trigger,
        array(
            select r.rolname::text
            from pg_roles r
            where r.rolname = any ($1)
              and not r.rolsuper
              and has_function_privilege(r.oid, p.oid, 'execute')
        ) as callers
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    join pg_language l on l.oid = p.prolang and l.lanname not in ('c', 'internal')
    where p.prokind in ('f', 'p')
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_proc'::regclass
            and d.objid = p.oid
            and d.deptype = 'e'
      )",
    " order by p.oid"
);

/// The parts of tables that call functions. Partitions repeat the parts of their root, so they are left out.
const USES: &str = r#"
    select t.tgfoid::int8 as function, t.tgrelid::int8 as "table", t.oid::int8 as trigger, t.tgname::text as name
    from pg_trigger t
    where not t.tgisinternal
      and t.tgparentid = 0
    union
    select d.refobjid::int8, p.relid::int8, 0, p.name
    from pg_depend d
    join (
        select 'pg_attrdef'::regclass as class, f.oid, f.adrelid as relid, a.attname::text as name
        from pg_attrdef f
        join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
        union all
        select 'pg_constraint'::regclass, c.oid, c.conrelid, c.conname::text
        from pg_constraint c
        where c.conrelid <> 0
        union all
        select 'pg_policy'::regclass, p.oid, p.polrelid, p.polname::text
        from pg_policy p
        union all
        select 'pg_class'::regclass, i.indexrelid, i.indrelid, c.relname::text
        from pg_index i
        join pg_class c on c.oid = i.indexrelid
        union all
        select 'pg_rewrite'::regclass, r.oid, r.ev_class, r.rulename::text
        from pg_rewrite r
    ) p on p.class = d.classid and p.oid = d.objid
    join pg_class c on c.oid = p.relid and not c.relispartition
    where d.refclassid = 'pg_proc'::regclass
    order by 2, 4, 1"#;
