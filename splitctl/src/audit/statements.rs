//! What each owner's statements use: those in its sqlx offline data, and those that its role ran (`pg_stat_statements`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sqlx::{Error, PgConnection, query, query_as};

use super::Sources;
use super::catalog::Catalog;
use super::finding::{Finding, Kind};
use super::lexer::{Token, tokens};
use super::ownership::Ownership;
use super::probe::{self, Use};
use crate::manifest::Manifest;

/// How many statements a finding names.
const NAMED: usize = 3;
/// How much of a statement's text it shows.
const SHOWN: usize = 60;

/// Commands that use no relation. Every session runs them.
pub const USE_NOTHING: [&str; 14] = [
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "set",
    "reset",
    "show",
    "discard",
    "deallocate",
    "listen",
];

/// A statement of the application.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its text.
    pub text: String,
    /// Its name in findings.
    pub label: String,
}

/// What an owner's statements do with one relation of another owner.
#[derive(Default)]
struct Crossing {
    used: Use,
    labels: BTreeSet<String>,
}

/// The owners' uses of each other's relations: one finding for each owner and relation.
pub async fn findings(
    connection: &mut PgConnection,
    manifest: &Manifest,
    sources: &Sources,
    catalog: &Catalog,
    owners: &Ownership,
    notes: &mut Vec<String>,
) -> Result<Vec<Finding>> {
    for name in sources.statements.keys() {
        manifest.owner(name)?;
    }
    let mut run = run_by_roles(connection, manifest, notes).await?;
    let mut findings = Vec::new();
    for (name, owner) in &manifest.owners {
        let mut statements = match sources.statements.get(name).or(owner.statements.as_ref()) {
            Some(folder) => offline_data(folder)?,
            None => {
                notes.push(format!("{name} has no folder of statements: `statements` in the manifest names its .sqlx"));
                Vec::new()
            }
        };
        statements.extend(run.remove(&owner.role).unwrap_or_default());
        probe::begin(connection, &owner.role).await?;
        let crossings = crossings(connection, name, &statements, catalog, owners, notes).await;
        query("rollback").execute(&mut *connection).await?;
        for (relation, crossing) in crossings? {
            findings.push(finding(name, relation, crossing, catalog, owners));
        }
    }
    Ok(findings)
}

async fn crossings(
    connection: &mut PgConnection,
    owner: &str,
    statements: &[Statement],
    catalog: &Catalog,
    owners: &Ownership,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<i64, Crossing>> {
    let mut crossings: BTreeMap<i64, Crossing> = BTreeMap::new();
    let mut refused = Vec::new();
    for statement in statements {
        let used = match probe::probe(connection, catalog, &statement.text).await? {
            Ok(used) => used,
            Err(reason) => {
                refused.push(format!("{}: {reason}", statement.label));
                continue;
            }
        };
        for (relation, used) in used {
            let relation = catalog.relations[&relation].root;
            if owners.get(relation).is_some_and(|other| other != owner) {
                let crossing = crossings.entry(relation).or_default();
                crossing.used.columns.extend(used.columns);
                crossing.used.rights.extend(used.rights);
                crossing.labels.insert(statement.label.clone());
            }
        }
    }
    if let Some(first) = refused.first() {
        notes.push(format!("{} of {} statements of {owner} could not be checked: {first}", refused.len(), statements.len()));
    }
    Ok(crossings)
}

fn finding(owner: &str, relation: i64, crossing: Crossing, catalog: &Catalog, owners: &Ownership) -> Finding {
    let Crossing { used: Use { columns, rights }, labels } = crossing;
    let join = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let named = labels.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = labels.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let object = catalog.shown(relation);
    let detail = format!("statements {} {object} ({}): {named}{more}", join(&rights), join(&columns));
    let to = owners.get(relation).unwrap_or_default();
    let finding = Finding::new(Kind::Statement, object, owner, to, detail).by();
    Finding { columns: Some(columns), rights: Some(rights), ..finding }
}

/// The statements of a folder's files `query-<hash>.json`.
pub fn offline_data(folder: &Path) -> Result<Vec<Statement>> {
    let shown = || format!("the statements in {} cannot be read", folder.display());
    let mut statements = Vec::new();
    for entry in fs::read_dir(folder).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !(name.starts_with("query-") && name.ends_with(".json")) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(shown)?;
        let data: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let text = data["query"].as_str().with_context(|| format!("{} has no `query`", path.display()))?.to_owned();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let summary = words.chars().take(SHOWN).collect::<String>();
        let dots = if summary.len() < words.len() { "…" } else { "" };
        let number = name.trim_start_matches("query-").chars().take(8).collect::<String>();
        statements.push(Statement { label: format!("query-{number}… `{summary}{dots}`"), text });
    }
    statements.sort_by(|a, b| a.label.cmp(&b.label));
    Ok(statements)
}

/// What `pg_stat_statements` has of the manifest's roles in this database.
pub async fn run_by_roles(
    connection: &mut PgConnection,
    manifest: &Manifest,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Vec<Statement>>> {
    let roles: Vec<&str> = manifest.owners.values().map(|owner| owner.role.as_str()).collect();
    query("begin").execute(&mut *connection).await?;
    let rows = if query(EXTENSION).fetch_optional(&mut *connection).await?.is_some() {
        query_as(RUN).persistent(false).bind(&roles).fetch_all(&mut *connection).await
    } else {
        notes.push("pg_stat_statements is not installed here: it would show what each role has run".to_owned());
        Ok(Vec::new())
    };
    query("rollback").execute(connection).await?;
    let mut run: BTreeMap<String, Vec<Statement>> = BTreeMap::new();
    let rows: Vec<(String, i64, String)> = match rows {
        Err(Error::Database(error)) => {
            notes.push(format!("pg_stat_statements does not answer: {}", error.message()));
            return Ok(run);
        }
        rows => rows?,
    };
    for (role, id, text) in rows {
        let first = tokens(&text).next();
        if !matches!(first, Some(Token::Word(word)) if USE_NOTHING.contains(&word.as_str())) {
            // Under memory pressure the extension keeps constants in the text. They are personal data, so no label shows it.
            run.entry(role).or_default().push(Statement { text, label: format!("pg_stat_statements {id}") });
        }
    }
    Ok(run)
}

/// Puts the extension's schema into the transaction's search path; returns a row if the extension is installed.
const EXTENSION: &str = r"
    select set_config('search_path', quote_ident(n.nspname), true)
    from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'";

/// Statements inside functions are left out, since the functions have findings of their own.
const RUN: &str = r"
    select r.rolname::text, s.queryid, s.query
    from pg_stat_statements s
    join pg_roles r on r.oid = s.userid
    join pg_database d on d.oid = s.dbid
    where d.datname = current_database()
      and r.rolname = any ($1)
      and s.toplevel
      and s.queryid is not null
    order by 1, 2";
