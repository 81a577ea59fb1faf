//! What couples the owners: the couplings in the catalog, in their statements and in their transactions, in one list.

pub mod body;
mod borrowings;
pub mod catalog;
mod finding;
pub mod functions;
pub mod lexer;
pub mod map;
mod ownership;
mod probe;
mod references;
pub mod rights;
pub mod statements;
mod transactions;
mod unowned;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

pub use self::finding::{Finding, Kind, Report, Severity};
pub use self::ownership::Ownership;
use crate::manifest::{Borrowing, Manifest, Owner};
use catalog::{Catalog, RelationKind};
use rights::Rights;

/// The sources besides the catalog.
#[derive(Debug, Default)]
pub struct Sources {
    /// Folders of sqlx offline data, by owner; they take precedence over the manifest's.
    pub statements: BTreeMap<String, PathBuf>,
    /// How long to watch transactions.
    pub watch: Option<Duration>,
}

/// Reads all sources, and judges the findings by the manifest's borrowings.
pub async fn audit(connection: &mut PgConnection, manifest: &Manifest, sources: &Sources) -> Result<Report> {
    let mut notes = Vec::new();
    let Survey { catalog, owners, mut findings } = Survey::of(connection, manifest, &mut notes).await?;
    findings.extend(statements::findings(connection, manifest, sources, &catalog, &owners, &mut notes).await?);
    match sources.watch {
        Some(duration) => findings.extend(transactions::findings(connection, duration, manifest, &mut notes).await?),
        None => notes
            .push("transactions were not watched: --watch 60s shows which of them write tables of two owners".to_owned()),
    }
    let today: String = query_scalar("select current_date::text").fetch_one(connection).await?;
    borrowings::apply(manifest, &today, &mut findings, &mut notes);
    Ok(Report::new(findings, notes))
}

/// The coupling that the borrowing names, if the catalog has it. Statements and transactions are left out.
pub async fn coupling(connection: &mut PgConnection, manifest: &Manifest, borrowing: &Borrowing) -> Result<Option<Finding>> {
    let findings = Survey::of(connection, manifest, &mut Vec::new()).await?.findings;
    Ok(findings.into_iter().find(|finding| borrowings::explains(borrowing, finding)))
}

/// The catalog, who owns what in it, and the couplings that it shows.
struct Survey {
    catalog: Catalog,
    owners: Ownership,
    findings: Vec<Finding>,
}

impl Survey {
    async fn of(connection: &mut PgConnection, manifest: &Manifest, notes: &mut Vec<String>) -> Result<Self> {
        let catalog = Catalog::read(connection, Some(manifest)).await?;
        let owners = Ownership::of(manifest, &catalog);
        // Either owner will do where two have one role, which `lists` refuses.
        let roles: BTreeMap<&str, &str> =
            manifest.owners.iter().map(|(name, owner)| (owner.role.as_str(), name.as_str())).collect();
        let names: Vec<&str> = roles.keys().copied().collect();
        let rights = Rights::read(connection, &names).await?;
        let mut findings = lists(manifest, &catalog, &owners);
        findings.extend(references::findings(connection, &catalog, &owners).await?);
        findings.extend(functions::findings(connection, &catalog, &owners, &roles).await?);
        findings.extend(rights::findings(&rights, &catalog, &owners, &roles));
        for role in names.iter().filter(|name| rights.roles.iter().all(|role| role.name != **name)) {
            notes.push(format!("the role {role} does not exist here, so nothing is known of its rights"));
        }
        Ok(Self { catalog, owners, findings })
    }
}

/// The tables and views in which the manifest and the database differ, and owners that share a role.
fn lists(manifest: &Manifest, catalog: &Catalog, owners: &Ownership) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (oid, table) in catalog.tables() {
        if owners.get(oid).is_none() {
            let detail = "no owner lists this table";
            findings.push(Finding::new(Kind::UnlistedTable, table.name.to_string(), "", "", detail));
        }
    }
    for table in manifest.unowned.iter().filter(|table| !catalog.unowned.contains(table)) {
        let detail = format!("the manifest lists the table {table} as unowned, which does not exist");
        findings.push(Finding::new(Kind::Missing, table.to_string(), "", "", detail));
    }
    for (name, owner) in &manifest.owners {
        let same = |(other, candidate): &(&String, &Owner)| *other < name && candidate.role == owner.role;
        if let Some((other, _)) = manifest.owners.iter().find(same) {
            let detail = "both log in as this role, so their rights and statements cannot be distinguished";
            findings.push(Finding::new(Kind::Role, format!("role {}", owner.role), name, other, detail).by());
        }
        let tables = owner.tables.iter().map(|table| (table, RelationKind::Table, "table"));
        let views = owner.views.iter().map(|view| (view, RelationKind::View, "view"));
        for (relation, kind, word) in tables.chain(views) {
            let found = catalog.find(relation).filter(|(_, found)| found.kind == kind);
            let detail = match found {
                None => format!("{name} lists the {word} {relation}, which does not exist"),
                Some((oid, found)) if kind == RelationKind::Table && found.root != oid => {
                    format!("{name} lists {relation}, a partition: list {}", catalog.shown(found.root))
                }
                Some(_) => continue,
            };
            findings.push(Finding::new(Kind::Missing, relation.to_string(), name, "", detail));
        }
    }
    findings
}
