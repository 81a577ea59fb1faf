//! Compares the roles and rights that the manifest implies with a database, and applies them.

mod actual;
mod implied;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::PgConnection;

use crate::audit::Ownership;
use crate::audit::catalog::{Catalog, Relation};
use crate::database::execute;
use crate::manifest::Manifest;
use crate::names::{quote_ident, quote_literal};

/// A statement that the manifest implies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The statement, without a semicolon. It may run more than once.
    pub sql: String,
    /// Whether the database lacks it, or a part of it.
    pub missing: bool,
}

/// The differences between the manifest and a database.
#[derive(Debug, Serialize)]
pub struct Drift {
    /// Statements that revoke rights which the manifest does not give.
    pub extra: Vec<String>,
    /// Statements that create roles and grant rights, in an order that works.
    pub implied: Vec<Step>,
    /// Relations of the manifest that do not exist.
    pub absent: Vec<String>,
    /// Differences that a person has to judge.
    pub notes: Vec<String>,
}

impl Drift {
    /// Whether manifest and database differ.
    pub fn is_some(&self) -> bool {
        !self.extra.is_empty() || !self.absent.is_empty() || self.implied.iter().any(|step| step.missing)
    }
}

/// Compares the manifest with a database. `only` names the owner whose own database it is.
pub async fn compare(connection: &mut PgConnection, manifest: &Manifest, only: Option<&str>) -> Result<Drift> {
    let catalog = Catalog::read(connection, Some(manifest)).await?;
    let owners = Ownership::of(manifest, &catalog);
    let implied = implied::of(manifest, &catalog, &owners, only);
    let actual = actual::Actual::read(connection, manifest).await?;
    let mut steps = Vec::new();
    for role in &implied.roles {
        steps.push(Step { sql: create_role(role), missing: !actual.roles.contains(role) });
    }
    for (role, schema) in &implied.schemas {
        let sql = format!("grant usage on schema {} to {}", quote_ident(schema), quote_ident(role));
        steps.push(Step { sql, missing: !actual.may_use(connection, role, schema).await? });
    }
    for (target, rights) in &implied.grants {
        let relation = &catalog.relations[&target.relation];
        let mut missing = false;
        for right in rights {
            missing |= !actual.may(connection, target, right).await?;
        }
        steps.push(Step { sql: grant(target, rights, relation), missing });
    }
    let (extra, notes) = actual.beyond(&implied, &catalog, &owners);
    Ok(Drift { extra, implied: steps, absent: implied.absent, notes })
}

/// Revokes and grants in one transaction what differs. Returns what it did, and what differs still.
pub async fn apply(connection: &mut PgConnection, manifest: &Manifest, only: Option<&str>) -> Result<(Drift, Drift)> {
    execute(connection, "begin").await?;
    let applied = revoke_and_grant(connection, manifest, only).await;
    execute(connection, if applied.is_ok() { "commit" } else { "rollback" }).await?;
    applied.context("nothing was changed")
}

async fn revoke_and_grant(connection: &mut PgConnection, manifest: &Manifest, only: Option<&str>) -> Result<(Drift, Drift)> {
    let before = compare(connection, manifest, only).await?;
    for statement in &before.extra {
        execute(connection, statement.as_str()).await.with_context(|| statement.clone())?;
    }
    // Compared again, because a role that loses a right on a table loses it on the columns as well.
    let mut lacking = compare(connection, manifest, only).await?;
    for step in lacking.implied.iter().filter(|step| step.missing) {
        execute(connection, step.sql.as_str()).await.with_context(|| step.sql.clone())?;
    }
    lacking.extra = before.extra;
    Ok((lacking, compare(connection, manifest, only).await?))
}

/// Creates the role unless it exists. Roles belong to the cluster, so another database's program may create it meanwhile.
fn create_role(role: &str) -> String {
    let statement = quote_literal(&format!("create role {} nologin", quote_ident(role)));
    let block = format!("begin execute {statement}; exception when duplicate_object or unique_violation then null; end");
    if block.contains("$do$") { format!("do {}", quote_literal(&block)) } else { format!("do $do$ {block} $do$") }
}

fn grant(target: &implied::Target, rights: &BTreeSet<String>, relation: &Relation) -> String {
    let rights: Vec<String> = rights.iter().map(|right| implied::right(right, &target.columns)).collect();
    let word = implied::word(relation.kind);
    format!("grant {} on {word} {} to {}", rights.join(", "), relation.name.sql(), quote_ident(&target.role))
}
