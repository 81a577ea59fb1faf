//! Couplings that the catalog records: constraints, views, policies, defaults, inheritance, types.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{PgConnection, query_as};

use super::catalog::{Catalog, RelationKind, in_user_schemas};
use super::finding::{Finding, Kind};
use super::ownership::Ownership;
use crate::names::{Qualified, shown};

/// All couplings that the catalog records.
pub async fn findings(connection: &mut PgConnection, catalog: &Catalog, owners: &Ownership) -> Result<Vec<Finding>> {
    let mut findings = views(catalog, owners);
    findings.extend(sequence_defaults(catalog, owners));
    for (kind, statement, verb) in [
        (Kind::ForeignKey, FOREIGN_KEYS, "refers to"),
        (Kind::Policy, POLICIES, "reads"),
        (Kind::Inheritance, INHERITANCE, "inherits from"),
    ] {
        let rows: Vec<(i64, String, i64)> = query_as(statement).fetch_all(&mut *connection).await?;
        for (table, name, other) in rows {
            let (Some(from), Some(to)) = (owners.get(table), owners.get(other)) else { continue };
            if from != to {
                let object = if name.is_empty() { catalog.shown(table) } else { part(catalog, table, &name) };
                let detail = format!("{object} {verb} {}", catalog.shown(other));
                findings.push(Finding::new(kind, object, from, to, detail));
            }
        }
    }
    findings.extend(shared_types(connection, owners).await?);
    Ok(findings)
}

/// `table.name`: the name of a part of a table, as a borrowing writes it.
pub fn part(catalog: &Catalog, table: i64, name: &str) -> String {
    format!("{}.{}", catalog.shown(table), shown(name))
}

/// Views, and rules of tables, that read another owner's relations today. Where the manifest lists them does not matter.
fn views(catalog: &Catalog, owners: &Ownership) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (&reader, read) in &catalog.reads {
        let Some(from) = owners.get(reader) else { continue };
        let foreign = read.iter().copied().filter(|&relation| owners.get(relation).is_some_and(|owner| owner != from));
        let foreign: Vec<i64> = foreign.collect();
        if let Some(to) = owners.others(from, foreign.iter().copied()) {
            let relation = &catalog.relations[&reader];
            let (kind, what) = match relation.kind {
                RelationKind::View => (Kind::View, "the view"),
                _ => (Kind::Policy, "a rule of"),
            };
            let names = foreign.iter().map(|&read| catalog.shown(read)).collect::<Vec<_>>().join(", ");
            findings.push(Finding::new(
                kind,
                relation.name.to_string(),
                from,
                &to,
                format!("{what} {} reads {names}", relation.name),
            ));
        }
    }
    findings
}

fn sequence_defaults(catalog: &Catalog, owners: &Ownership) -> Vec<Finding> {
    let mut findings = BTreeMap::new();
    for default in &catalog.sequence_defaults {
        // Partitions repeat the defaults of their root.
        let table = catalog.relations[&default.table].root;
        let (Some(from), Some(to)) = (owners.get(table), owners.get(default.sequence)) else { continue };
        if from != to {
            let object = part(catalog, table, &default.column);
            let detail = format!("the default of {object} takes numbers from {}", catalog.shown(default.sequence));
            findings.insert(object.clone(), Finding::new(Kind::Default, object, from, to, detail));
        }
    }
    findings.into_values().collect()
}

/// Enumerations, domains, composite types and ranges of several owners' columns.
async fn shared_types(connection: &mut PgConnection, owners: &Ownership) -> Result<Vec<Finding>> {
    let rows: Vec<(String, String, i64)> = query_as(TYPES).fetch_all(connection).await?;
    let mut users: BTreeMap<Qualified, BTreeSet<i64>> = BTreeMap::new();
    for (schema, name, table) in rows {
        users.entry(Qualified::new(schema, name)).or_default().insert(table);
    }
    let mut findings = Vec::new();
    for (name, tables) in users {
        if let Some((from, to)) = shared(owners, &tables) {
            let detail = format!("columns of {from} and {to} are of the type {name}");
            findings.push(Finding::new(Kind::SharedType, name.to_string(), &from, &to, detail).warning());
        }
    }
    Ok(findings)
}

/// The first owner of the relations, and the other owners; `None` if all have one owner.
pub fn shared(owners: &Ownership, relations: &BTreeSet<i64>) -> Option<(String, String)> {
    let first = owners.all(relations.iter().copied()).into_iter().next()?;
    let others = owners.others(&first, relations.iter().copied())?;
    Some((first, others))
}

/// Partitions repeat the foreign keys of their root, so they are left out.
const FOREIGN_KEYS: &str = r"
    select conrelid::int8, conname::text, confrelid::int8
    from pg_constraint
    where contype = 'f'
      and conparentid = 0
    order by conrelid, conname";

const POLICIES: &str = r"
    select distinct p.polrelid::int8, p.polname::text, d.refobjid::int8
    from pg_policy p
    join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
    where d.refclassid = 'pg_class'::regclass
      and d.refobjid <> p.polrelid
    order by 1, 2, 3";

const INHERITANCE: &str = r"
    select i.inhrelid::int8, '', i.inhparent::int8
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where not c.relispartition
      and c.relkind in ('r', 'p', 'f')
    order by 1, 3";

/// An array counts as the type of its elements.
const TYPES: &str = in_user_schemas!(
    r"
    select distinct n.nspname::text, t.typname::text, a.attrelid::int8
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'p')
    join pg_type whole on whole.oid = a.atttypid
    join pg_type t on t.oid = case when whole.typcategory = 'A' then whole.typelem else whole.oid end
    join pg_namespace n on n.oid = t.typnamespace
    where a.attnum > 0
      and not a.attisdropped
      and t.typtype in ('e', 'd', 'c', 'r', 'm')
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_type'::regclass
            and d.objid = t.oid
            and d.deptype = 'e'
      )",
    " order by 1, 2, 3"
);
