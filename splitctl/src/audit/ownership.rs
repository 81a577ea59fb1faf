//! The owner of each relation in the database.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, RelationKind};
use crate::manifest::Manifest;

/// Owners by the oid of a relation. An owner has its listed tables, with their partitions and sequences, and its listed
/// views. A view that no owner lists belongs to an owner of the tables that it reads.
#[derive(Debug)]
pub struct Ownership {
    owners: BTreeMap<i64, String>,
}

impl Ownership {
    /// Assigns the catalog's relations to the manifest's owners.
    pub fn of(manifest: &Manifest, catalog: &Catalog) -> Self {
        let mut owners = BTreeMap::new();
        for (oid, relation) in &catalog.relations {
            let listed = match relation.kind {
                RelationKind::Table => manifest.owner_of(&catalog.relations.get(&relation.root).unwrap_or(relation).name),
                RelationKind::View => manifest.owner_of(&relation.name),
                RelationKind::Sequence | RelationKind::Foreign => None,
            };
            listed.and_then(|owner| owners.insert(*oid, owner.to_owned()));
        }
        let mut ownership = Self { owners };
        let unlisted: Vec<i64> = catalog.views().map(|(oid, _)| oid).filter(|oid| ownership.get(*oid).is_none()).collect();
        for view in unlisted {
            // Any of several owners would do; the first by name stays the same from run to run.
            let owner = ownership.all(catalog.tables_read(view)).into_iter().next();
            owner.and_then(|owner| ownership.owners.insert(view, owner));
        }
        // A sequence belongs to the table that it is dropped with, or else to the first table that takes numbers from it.
        let takers = catalog.sequence_defaults.iter().map(|default| (default.sequence, default.table));
        for (sequence, table) in catalog.sequence_tables.iter().map(|(sequence, table)| (*sequence, *table)).chain(takers) {
            if let Some(owner) = ownership.get(table).map(str::to_owned) {
                ownership.owners.entry(sequence).or_insert(owner);
            }
        }
        ownership
    }

    /// The relation's owner.
    pub fn get(&self, relation: i64) -> Option<&str> {
        self.owners.get(&relation).map(String::as_str)
    }

    /// The owners of these relations.
    pub fn all(&self, relations: impl IntoIterator<Item = i64>) -> BTreeSet<String> {
        relations.into_iter().filter_map(|relation| self.get(relation)).map(str::to_owned).collect()
    }

    /// The owners of these relations without `owner`, separated by commas; `None` if there are no others.
    pub fn others(&self, owner: &str, relations: impl IntoIterator<Item = i64>) -> Option<String> {
        let mut others = self.all(relations);
        others.remove(owner);
        (!others.is_empty()).then(|| others.into_iter().collect::<Vec<_>>().join(", "))
    }
}
