//! Guesses the owner of each table.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{PgConnection, query_as};

use crate::audit::catalog::Catalog;

/// The owner, and its role, of tables for which there is no guess.
pub const UNASSIGNED: &str = "unassigned";
/// Suffixes of roles' names that owners' names drop.
const SUFFIXES: [&str; 4] = ["_svc", "_app", "_role", "_user"];
/// The longest name of an owner.
const LENGTH: usize = 20;

/// Why a relation belongs to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Only the owner's role may change it.
    Grants,
    /// Its foreign keys lead to tables of this owner only.
    ForeignKeys,
    /// Its name begins like the names of this owner's tables, or this owner has the rest of its schema.
    Name,
    /// It is a view that reads this owner's tables only.
    Reads,
    /// There is no guess.
    None,
}

/// The owners, and what each owns.
#[derive(Debug, Default)]
pub struct Guesses {
    /// Roles by owner.
    pub owners: BTreeMap<String, String>,
    /// The owner of each table, and why.
    pub tables: BTreeMap<i64, (String, Reason)>,
}

/// Guesses by grants first, then by foreign keys, then by names.
pub async fn guess(connection: &mut PgConnection, catalog: &Catalog) -> Result<Guesses> {
    let mut writers: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (table, role) in query_as::<_, (i64, String)>(WRITERS).fetch_all(&mut *connection).await? {
        writers.entry(table).or_default().insert(role);
    }
    let superusers: BTreeSet<String> = sqlx::query_scalar("select rolname::text from pg_roles where rolsuper")
        .fetch_all(&mut *connection)
        .await?
        .into_iter()
        .collect();
    let joins: Vec<(i64, i64)> = query_as("select conrelid::int8, confrelid::int8 from pg_constraint where contype = 'f'")
        .fetch_all(connection)
        .await?;

    // A role that owns tables which other roles write runs migrations, and is not an owner in this sense.
    let migrates = |role: &str| catalog.tables().any(|(oid, table)| table.role == role && writers.contains_key(&oid));
    let mut guesses = Guesses::default();
    for (oid, table) in catalog.tables() {
        let role = match writers.get(&oid) {
            Some(roles) if roles.len() == 1 => roles.first(),
            Some(_) => None,
            None => Some(&table.role).filter(|role| !superusers.contains(*role) && !migrates(role)),
        };
        if let Some(role) = role {
            let owner = guesses.owner(role);
            guesses.tables.insert(oid, (owner, Reason::Grants));
        }
    }
    guesses.by_foreign_keys(catalog, &joins);
    guesses.by_name(catalog);
    let left: Vec<i64> = catalog.tables().map(|(oid, _)| oid).filter(|oid| !guesses.tables.contains_key(oid)).collect();
    if !left.is_empty() {
        let owner = guesses.owner(UNASSIGNED);
        guesses.tables.extend(left.into_iter().map(|table| (table, (owner.clone(), Reason::None))));
    }
    Ok(guesses)
}

impl Guesses {
    /// The owner with this role; a new owner is named after the role.
    fn owner(&mut self, role: &str) -> String {
        if let Some((name, _)) = self.owners.iter().find(|(_, known)| *known == role) {
            return name.clone();
        }
        let short = SUFFIXES.iter().find_map(|suffix| role.strip_suffix(suffix)).filter(|short| !short.is_empty());
        let plain = |character: char| match character.to_ascii_lowercase() {
            character @ ('a'..='z' | '0'..='9' | '_') => character,
            _ => '_',
        };
        let name: String = short.unwrap_or(role).chars().map(plain).take(LENGTH).collect();
        let numbered = |number: usize| {
            let number = number.to_string();
            format!("{}{number}", &name[..name.len().min(LENGTH - number.len())])
        };
        let names = std::iter::once(name.clone()).chain((2..).map(numbered));
        let name = names.into_iter().find(|name| !self.owners.contains_key(name)).unwrap_or_default();
        self.owners.insert(name.clone(), role.to_owned());
        name
    }

    /// Gives tables that are joined by foreign keys to the owner of the tables that they lead to, if there is one.
    fn by_foreign_keys(&mut self, catalog: &Catalog, joins: &[(i64, i64)]) {
        let mut seen: BTreeSet<i64> = BTreeSet::new();
        let mut found = Vec::new();
        for (table, _) in catalog.tables() {
            if self.tables.contains_key(&table) || seen.contains(&table) {
                continue;
            }
            let (mut cluster, mut owners, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![table]);
            while let Some(table) = left.pop() {
                if let Some((owner, _)) = self.tables.get(&table) {
                    owners.insert(owner.clone());
                } else if cluster.insert(table) {
                    let neighbours = joins.iter().filter_map(|&(a, b)| match table {
                        table if table == a => Some(b),
                        table if table == b => Some(a),
                        _ => None,
                    });
                    let roots = neighbours.filter_map(|table| catalog.relations.get(&table)).map(|relation| relation.root);
                    left.extend(roots);
                }
            }
            seen.extend(&cluster);
            found.push((cluster, owners));
        }
        for (cluster, owners) in found {
            if let (Some(owner), 1) = (owners.first(), owners.len()) {
                self.tables.extend(cluster.into_iter().map(|table| (table, (owner.clone(), Reason::ForeignKeys))));
            }
        }
    }

    fn by_name(&mut self, catalog: &Catalog) {
        let word = |name: &str| {
            let first = name.split('_').find(|word| !word.is_empty()).unwrap_or(name).to_lowercase();
            first.strip_suffix('s').map(str::to_owned).unwrap_or(first)
        };
        let mut found = Vec::new();
        for (oid, table) in catalog.tables().filter(|(oid, _)| !self.tables.contains_key(oid)) {
            let like = |alike: &dyn Fn(&crate::names::Qualified) -> bool| {
                let known = self.tables.iter().filter(|(known, _)| alike(&catalog.relations[known].name));
                let owners: BTreeSet<&String> = known.map(|(_, (owner, _))| owner).collect();
                owners.first().filter(|_| owners.len() == 1).map(|owner| (*owner).clone())
            };
            let by_owner = self.owners.keys().find(|owner| word(owner) == word(&table.name.name)).cloned();
            let owner = like(&|name| word(&name.name) == word(&table.name.name)).or(by_owner).or_else(|| {
                let own_schema = table.name.schema != "public";
                like(&|name| own_schema && name.schema == table.name.schema)
            });
            found.extend(owner.map(|owner| (oid, (owner, Reason::Name))));
        }
        self.tables.extend(found);
    }
}

/// The roles that may change a table, by grants on the table or its columns.
const WRITERS: &str = r"
    select distinct c.oid::int8, r.rolname::text
    from pg_class c
    cross join lateral (
        select g.grantee, g.privilege_type
        from aclexplode(c.relacl) g
        union all
        select g.grantee, g.privilege_type
        from pg_attribute a
        cross join lateral aclexplode(a.attacl) g
        where a.attrelid = c.oid
    ) g
    join pg_roles r on r.oid = g.grantee
    where c.relkind in ('r', 'p')
      and g.privilege_type in ('INSERT', 'UPDATE', 'DELETE')
      and g.grantee <> c.relowner
      and not r.rolsuper
      and r.rolname !~ '^pg_'";
