//! Drafts a manifest from a live database. Roles, foreign keys and names suggest the owners; the audit lists what crosses.

mod draft;
mod owners;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use sqlx::{PgConnection, query_scalar};

use self::owners::Reason;
use crate::audit::catalog::Catalog;
use crate::audit::rights::Rights;
use crate::audit::{Report, Severity, Sources, audit};
use crate::manifest::{Borrowing, Manifest, Owner, Url};
use crate::names::Qualified;

/// The reason in every borrowing of a draft.
const WHY: &str = "found by init; say why, or remove it";
/// A role's rights on its own table without an entry in `rights`.
const OWN_TABLE: [&str; 4] = ["select", "insert", "update", "delete"];

/// The text of a manifest. `source` names the variable that holds the URL.
pub async fn draft(connection: &mut PgConnection, source: &str) -> Result<String> {
    let catalog = Catalog::read(connection, None).await?;
    ensure!(catalog.tables().next().is_some(), "the database has no tables that an owner could list: check its URL");
    let guesses = owners::guess(connection, &catalog).await?;
    let roles: Vec<&str> = guesses.owners.values().map(String::as_str).collect();
    let rights = Rights::read(connection, &roles).await?;
    let mut manifest = Manifest {
        source: Url(source.to_owned()),
        source_from_target: None,
        source_standbys: Vec::new(),
        unowned: catalog.unowned.iter().cloned().collect(),
        owners: guesses
            .owners
            .iter()
            .map(|(name, role)| (name.clone(), Owner { role: role.clone(), ..Owner::default() }))
            .collect(),
        borrowings: Vec::new(),
    };
    let mut reasons: BTreeMap<Qualified, Reason> = BTreeMap::new();
    for (table, (owner, reason)) in &guesses.tables {
        let relation = &catalog.relations[table];
        reasons.insert(relation.name.clone(), *reason);
        add(&mut manifest, owner, *table, &OWN_TABLE, *reason, &rights, &catalog);
    }
    for (view, _) in catalog.views() {
        let read: BTreeSet<&String> = catalog.tables_read(view).iter().map(|table| &guesses.tables[table].0).collect();
        // A view over several owners' tables belongs to none of them: it becomes a borrowing.
        if let (Some(owner), 1) = (read.first(), read.len()) {
            add(&mut manifest, owner, view, &OWN_TABLE[..1], Reason::Reads, &rights, &catalog);
        }
    }
    let report = audit(connection, &manifest, &Sources::default()).await?;
    let until: String =
        query_scalar("select (current_date + interval '1 year')::date::text").fetch_one(&mut *connection).await?;
    manifest.borrowings = borrowings(&report, &manifest, &rights, &catalog, &until);
    Ok(draft::text(&manifest, &reasons))
}

/// Lists a relation under its owner, with the role's rights if they differ from the usual rights.
fn add(manifest: &mut Manifest, owner: &str, oid: i64, usual: &[&str], reason: Reason, rights: &Rights, catalog: &Catalog) {
    let relation = &catalog.relations[&oid];
    let Some(owner) = manifest.owners.get_mut(owner) else { return };
    // The role `unassigned` does not exist, and the role that owns a relation needs no grant.
    if reason != Reason::None && relation.role != owner.role {
        let given = given(rights, &owner.role, oid);
        if given != usual.iter().copied().collect() {
            // People write the usual rights first, in this order.
            let known = usual.iter().filter(|right| given.contains(**right));
            let others = given.iter().filter(|right| !usual.contains(right));
            let rights = known.chain(others).map(|&right| right.to_owned()).collect();
            owner.rights.insert(relation.name.clone(), rights);
        }
    }
    if reason == Reason::Reads { &mut owner.views } else { &mut owner.tables }.push(relation.name.clone());
}

/// The rights that were granted to the role itself on the whole relation.
fn given<'a>(rights: &'a Rights, role: &str, relation: i64) -> BTreeSet<&'a str> {
    let role = rights.roles.iter().find(|candidate| candidate.name == role).map(|role| role.oid);
    let granted = rights.granted.iter().filter(|granted| granted.relation == relation && granted.column.is_none());
    granted.filter(|granted| Some(granted.grantee) == role).map(|granted| granted.right.as_str()).collect()
}

/// A borrowing for each owner and object with an error of the audit, so that the audit passes with the draft.
fn borrowings(report: &Report, manifest: &Manifest, rights: &Rights, catalog: &Catalog, until: &str) -> Vec<Borrowing> {
    let mut borrowings: BTreeMap<(&str, &str), Borrowing> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        let borrowing = borrowings.entry((&finding.from, &finding.object)).or_insert_with(|| Borrowing {
            who: finding.from.clone(),
            what: finding.object.clone(),
            why: WHY.to_owned(),
            until: until.to_owned(),
            ..Borrowing::default()
        });
        borrowing.rights.extend(finding.rights.iter().flatten().cloned());
        borrowing.columns.extend(finding.columns.iter().flatten().cloned());
    }
    for borrowing in borrowings.values_mut() {
        let relation = borrowing.what.parse().ok().and_then(|name| catalog.find(&name));
        if let Some((oid, relation)) = relation {
            let role = manifest.owners.get(&borrowing.who).map(|owner| owner.role.as_str());
            let given = role.map(|role| given(rights, role, oid)).unwrap_or_default();
            borrowing.rights.extend(given.into_iter().map(str::to_owned));
            // A list of all columns limits nothing.
            if relation.columns.iter().all(|column| borrowing.columns.contains(column)) {
                borrowing.columns.clear();
            }
        }
        for list in [&mut borrowing.rights, &mut borrowing.columns] {
            list.sort();
            list.dedup();
        }
    }
    borrowings.into_values().collect()
}
