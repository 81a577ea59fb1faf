//! The roles and rights that the manifest implies.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::Ownership;
use crate::audit::catalog::{Catalog, RelationKind};
use crate::manifest::Manifest;
use crate::names::{Qualified, quote_ident};

/// A role's rights on its own tables, unless the manifest lists fewer.
const OWN_TABLE: [&str; 4] = ["select", "insert", "update", "delete"];

/// A role, and a relation on which it has rights.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The role.
    pub role: String,
    /// The table, view or sequence.
    pub relation: i64,
    /// The columns that the rights are limited to; empty for all.
    pub columns: Vec<String>,
}

/// What the manifest implies.
#[derive(Debug, Default)]
pub struct Implied {
    /// The roles, each once.
    pub roles: BTreeSet<String>,
    /// Roles, each with a schema that it uses.
    pub schemas: BTreeSet<(String, String)>,
    /// Rights in lower case.
    pub grants: BTreeMap<Target, BTreeSet<String>>,
    /// Relations of the manifest that the database does not have.
    pub absent: Vec<String>,
}

/// Derives the rights: for all owners on the shared database, or for `only` one owner on its own database.
pub fn of(manifest: &Manifest, catalog: &Catalog, owners: &Ownership, only: Option<&str>) -> Implied {
    let mut implied = Implied::default();
    for (name, owner) in manifest.owners.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        implied.roles.insert(owner.role.clone());
        let tables = owner.tables.iter().map(|table| (table, &OWN_TABLE[..]));
        let views = owner.views.iter().map(|view| (view, &OWN_TABLE[..1]));
        for (relation, usual) in tables.chain(views) {
            let rights = owner.rights.get(relation).map_or_else(
                || usual.iter().map(|&right| right.to_owned()).collect(),
                |rights| rights.iter().map(|right| right.to_lowercase()).collect::<BTreeSet<String>>(),
            );
            match catalog.find(relation) {
                Some((oid, _)) => {
                    if rights.contains("insert") {
                        implied.sequences(&owner.role, name, oid, catalog, owners);
                    }
                    implied.grant(&owner.role, oid, &[], rights, catalog);
                }
                None => implied.absent.push(format!("{relation} of {name} does not exist")),
            }
        }
        // On its own database an owner borrows nothing, because replacements stand there.
        for borrowing in manifest.borrowings.iter().filter(|borrowing| only.is_none() && borrowing.who == *name) {
            let found = borrowing.what.parse::<Qualified>().ok().and_then(|name| catalog.find(&name));
            if let Some((oid, _)) = found {
                let rights = borrowing.rights.iter().map(|right| right.to_lowercase()).collect();
                implied.grant(&owner.role, oid, &borrowing.columns, rights, catalog);
            }
        }
    }
    implied
}

impl Implied {
    fn grant(&mut self, role: &str, relation: i64, columns: &[String], rights: BTreeSet<String>, catalog: &Catalog) {
        if !rights.is_empty() {
            self.schemas.insert((role.to_owned(), catalog.relations[&relation].name.schema.clone()));
            let target = Target { role: role.to_owned(), relation, columns: columns.to_vec() };
            self.grants.entry(target).or_default().extend(rights);
        }
    }

    /// Adds the sequences that inserts take numbers from. Identity columns need no right.
    fn sequences(&mut self, role: &str, owner: &str, table: i64, catalog: &Catalog, owners: &Ownership) {
        for default in &catalog.sequence_defaults {
            if default.table == table && owners.get(default.sequence) == Some(owner) {
                self.grant(role, default.sequence, &[], BTreeSet::from(["usage".to_owned()]), catalog);
            }
        }
    }

    /// Whether the manifest gives this right on the whole relation or on the column.
    pub fn gives(&self, role: &str, relation: i64, column: Option<&str>, right: &str) -> bool {
        self.grants.iter().any(|(target, rights)| {
            let covers =
                target.columns.is_empty() || column.is_some_and(|column| target.columns.iter().any(|c| c == column));
            target.role == role && target.relation == relation && covers && rights.contains(right)
        })
    }
}

/// A right as SQL writes it, limited to the columns if there are any.
pub fn right(right: &str, columns: &[String]) -> String {
    if columns.is_empty() {
        return right.to_owned();
    }
    let columns: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
    format!("{right} ({})", columns.join(", "))
}

/// `table` or `sequence`: in grants, a view is a table.
pub fn word(kind: RelationKind) -> &'static str {
    if kind == RelationKind::Sequence { "sequence" } else { "table" }
}
