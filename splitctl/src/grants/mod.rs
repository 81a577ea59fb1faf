//! The roles and rights that the manifest implies, and how far a database has drifted from them.

mod actual;
mod implied;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::PgConnection;

use crate::audit::Ownership;
use crate::audit::catalog::Catalog;
use crate::database::execute;
use crate::manifest::Manifest;
use crate::names::{quote_ident, quote_literal};

/// One statement of what the manifest implies, and whether the database lacks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The statement, without a semicolon. Running it twice is running it once.
    pub sql: String,
    /// Whether the database lacks it, or a part of it.
    pub missing: bool,
}

/// What the manifest implies, beside what the database has.
#[derive(Debug, Serialize)]
pub struct Drift {
    /// What takes away rights that the manifest does not give.
    pub extra: Vec<String>,
    /// Roles and grants, in an order in which they can be run.
    pub implied: Vec<Step>,
    /// What cannot be granted, because it does not exist.
    pub absent: Vec<String>,
    /// What a person has to judge.
    pub notes: Vec<String>,
}

impl Drift {
    /// Whether manifest and database differ.
    pub fn is_some(&self) -> bool {
        !self.extra.is_empty() || !self.absent.is_empty() || self.implied.iter().any(|step| step.missing)
    }
}

/// Compares. `only` limits it to what that owner needs on a database of its own.
pub async fn compare(connection: &mut PgConnection, manifest: &Manifest, only: Option<&str>) -> Result<Drift> {
    let catalog = Catalog::read(connection).await?;
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

/// Makes the database what the manifest implies, in one transaction: first what is taken away, then what is given. Returns what
/// was done, and what differs still.
pub async fn apply(connection: &mut PgConnection, manifest: &Manifest, only: Option<&str>) -> Result<(Drift, Drift)> {
    execute(connection, "begin").await?;
    let applied = take_and_give(connection, manifest, only).await;
    execute(connection, if applied.is_ok() { "commit" } else { "rollback" }).await?;
    applied.context("nothing is changed")
}

async fn take_and_give(connection: &mut PgConnection, manifest: &Manifest, only: Option<&str>) -> Result<(Drift, Drift)> {
    let before = compare(connection, manifest, only).await?;
    for statement in &before.extra {
        execute(connection, statement.as_str()).await.with_context(|| statement.clone())?;
    }
    // Looked at again: who loses a right on a table loses it on its columns as well.
    let mut lacking = compare(connection, manifest, only).await?;
    for step in lacking.implied.iter().filter(|step| step.missing) {
        execute(connection, step.sql.as_str()).await.with_context(|| step.sql.clone())?;
    }
    lacking.extra = before.extra;
    Ok((lacking, compare(connection, manifest, only).await?))
}

/// Roles belong to the cluster: another database's program may make it at this moment. One that exists stays as it is.
fn create_role(role: &str) -> String {
    let statement = quote_literal(&format!("create role {} nologin", quote_ident(role)));
    let block = format!("begin execute {statement}; exception when duplicate_object or unique_violation then null; end");
    if block.contains("$do$") { format!("do {}", quote_literal(&block)) } else { format!("do $do$ {block} $do$") }
}

fn grant(target: &implied::Target, rights: &BTreeSet<String>, relation: &crate::audit::catalog::Relation) -> String {
    let rights: Vec<String> = rights.iter().map(|right| implied::right(right, &target.columns)).collect();
    let word = implied::word(relation.kind);
    format!("grant {} on {word} {} to {}", rights.join(", "), relation.name.sql(), quote_ident(&target.role))
}
