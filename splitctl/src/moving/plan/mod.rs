//! The preflight: everything that would stop or surprise a move, all findings at once. Nothing is changed.

mod server;
mod tables;
mod target;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Move, crossings, journal, schema, slot};

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The copy would fail, or not be right.
    Error,
    /// It has to be seen to before the cutover, or known.
    Warning,
    /// What will be done.
    Note,
}

/// A finding: what it is, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How it weighs.
    pub weight: Weight,
    /// What was looked at.
    pub check: &'static str,
    /// What was found, and what to do.
    pub text: String,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Whose move.
    pub owner: String,
    /// Everything, errors first.
    pub findings: Vec<Finding>,
    /// Rows to copy, as the statistics guess.
    pub rows: i64,
    /// Bytes to copy, without indexes.
    pub bytes: i64,
}

impl Plan {
    /// Those that would stop it.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Error)
    }

    fn add(&mut self, weight: Weight, check: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { weight, check, text: text.into() });
    }

    fn error(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Weight::Error, check, text);
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Weight::Warning, check, text);
    }

    fn note(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Weight::Note, check, text);
    }
}

/// Looks at both databases.
///
/// # Errors
/// If they cannot be asked; what they say is in the plan.
pub async fn make(moving: &mut Move) -> Result<Plan> {
    let owner = moving.moving().clone();
    let mut plan = Plan { owner: moving.owner.clone(), findings: Vec::new(), rows: 0, bytes: 0 };
    if let Some((_, by)) = journal::open_move(&mut moving.source.connection).await? {
        if by == moving.owner {
            plan.note("move", format!("the move of {by} is open already: `splitctl status {by}` tells how far it is"));
        } else {
            plan.error("move", format!("a move of {by} is open: complete or abort that first"));
        }
    }
    server::check(&mut plan, &mut moving.source, moving.state.is_some()).await?;
    server::check(&mut plan, &mut moving.target, moving.state.is_some()).await?;
    if let Err(error) = schema::find_pg_dump(moving.source.version).await {
        plan.error("pg_dump", error.to_string());
    }
    tables::check(&mut plan, &mut moving.source, &owner).await?;
    target::check(&mut plan, &mut moving.source, &mut moving.target, &owner, moving.state.is_some()).await?;
    target::check_roles(&mut plan, &mut moving.source, &mut moving.target, &owner).await?;
    for side in [&mut moving.source, &mut moving.target] {
        for transaction in slot::long_transactions(&mut side.connection, Duration::from_secs(5)).await? {
            plan.warn("transactions", format!("{}: {transaction}; a new replication slot waits for its end", side.place));
        }
    }
    for crossing in crossings::standing(moving).await? {
        plan.warn(
            "crossings",
            format!("{} – the copy may begin, the cutover is refused while it stands", crossing.trim_end_matches('.')),
        );
    }
    if moving.source.identity.system == moving.target.identity.system && moving.source.identity != moving.target.identity {
        plan.warn(
            "cluster",
            format!(
                "source and target are one cluster: while the first copy runs ({} MB), its transactions hold the horizon back, and event feeds wait for it",
                plan.bytes / 1_000_000
            ),
        );
    }
    plan.findings.sort_by_key(|finding| finding.weight);
    Ok(plan)
}

async fn strings(connection: &mut PgConnection, statement: String) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(connection).await?)
}
