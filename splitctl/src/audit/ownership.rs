//! Which owner each relation of the database belongs to.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, RelationKind};
use crate::manifest::Manifest;

/// Owners by the oid of what they own: listed tables with their partitions and sequences, listed views, and views that
/// nobody lists by what they read.
#[derive(Debug)]
pub struct Ownership {
    owners: BTreeMap<i64, String>,
}

impl Ownership {
    /// Works it out.
    pub fn of(manifest: &Manifest, catalog: &Catalog) -> Self {
        let mut owners = BTreeMap::new();
        for (oid, relation) in &catalog.relations {
            let listed = match relation.kind {
                RelationKind::Table => manifest.owner_of(&catalog.relations.get(&relation.root).unwrap_or(relation).name),
                RelationKind::View => manifest.owner_of(&relation.name),
                RelationKind::Sequence => None,
            };
            listed.and_then(|owner| owners.insert(*oid, owner.to_owned()));
        }
        let mut ownership = Self { owners };
        let unlisted: Vec<i64> = catalog.views().map(|(oid, _)| oid).filter(|oid| ownership.get(*oid).is_none()).collect();
        for view in unlisted {
            // Of several, the first by name: any choice will do, as long as it is the same tomorrow.
            let owner = ownership.all(catalog.tables_read(view)).into_iter().next();
            owner.and_then(|owner| ownership.owners.insert(view, owner));
        }
        // A sequence goes with the table that it is dropped with, and otherwise with the first that takes numbers from it.
        let takers = catalog.sequence_defaults.iter().map(|default| (default.sequence, default.table));
        for (sequence, table) in catalog.sequence_tables.iter().map(|(sequence, table)| (*sequence, *table)).chain(takers) {
            if let Some(owner) = ownership.get(table).map(str::to_owned) {
                ownership.owners.entry(sequence).or_insert(owner);
            }
        }
        ownership
    }

    /// Who owns it.
    pub fn get(&self, relation: i64) -> Option<&str> {
        self.owners.get(&relation).map(String::as_str)
    }

    /// Who owns any of them.
    pub fn all(&self, relations: impl IntoIterator<Item = i64>) -> BTreeSet<String> {
        relations.into_iter().filter_map(|relation| self.get(relation)).map(str::to_owned).collect()
    }

    /// Who but `owner` owns any of them, with commas between; `None` if nobody.
    pub fn others(&self, owner: &str, relations: impl IntoIterator<Item = i64>) -> Option<String> {
        let mut others = self.all(relations);
        others.remove(owner);
        (!others.is_empty()).then(|| others.into_iter().collect::<Vec<_>>().join(", "))
    }
}
