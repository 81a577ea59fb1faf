//! The plan: everything that would stop or surprise a move, all findings at once. It changes nothing.

mod along;
mod settings;
mod target;

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, query_as};

use super::schema::pg_dump;
use super::side::Side;
use super::{Move, crossings, relations, slot, stream, unowned};
use crate::manifest::Owner;
use crate::names::Qualified;

/// The weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The copy would fail, or would not be correct.
    Error,
    /// It has to be changed before the cutover, or known.
    Warning,
    /// It says what the copy will do.
    Note,
}

/// A finding, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its weight.
    pub weight: Weight,
    /// The check that found it.
    pub check: String,
    /// The object, what is wrong with it, and what to do.
    pub text: String,
}

/// The findings of all checks.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The owner.
    pub owner: String,
    /// All findings, errors first.
    pub findings: Vec<Finding>,
    /// The number of rows to copy, as the statistics estimate it.
    pub rows: i64,
    /// The bytes to copy, without indexes.
    pub bytes: i64,
}

impl Plan {
    /// The findings that stop the copy.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Error)
    }

    fn add(&mut self, weight: Weight, check: &str, text: impl Into<String>) {
        self.findings.push(Finding { weight, check: check.to_owned(), text: text.into() });
    }
}

/// The checks that one statement makes: errors, then warnings.
static CHECKS: LazyLock<Checks> =
    LazyLock::new(|| toml::from_str(include_str!("checks.toml")).expect("the list of checks is TOML"));

#[derive(Deserialize)]
struct Checks {
    check: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    weight: Weight,
    name: String,
    /// The side that it asks; both if there is none.
    on: Option<Side>,
    /// Whether the manifest may accept what it finds.
    #[serde(default)]
    acceptable: bool,
    statement: String,
    message: String,
}

/// A row that the statement of a check returns.
#[derive(Default, FromRow)]
#[sqlx(default)]
struct Found {
    object: Option<String>,
    detail: String,
}

/// Checks both databases.
///
/// # Errors
/// If a database cannot be asked. What is wrong with it is a finding.
pub async fn make(the_move: &mut Move) -> Result<Plan> {
    let mut plan = Plan { owner: the_move.owner_name.clone(), findings: Vec::new(), rows: 0, bytes: 0 };
    check_open_moves(&mut plan, the_move).await?;
    if let Err(error) = pg_dump::find(the_move.source.version).await {
        plan.add(Weight::Error, "pg_dump", error.to_string());
    }
    run_checks(&mut plan, the_move).await?;
    measure(&mut plan, the_move).await?;
    target::check(&mut plan, the_move).await?;
    along::check(&mut plan, the_move).await?;
    settings::check(&mut plan, the_move).await?;
    try_streams(&mut plan, the_move).await?;
    for text in unowned::describe(the_move).await? {
        plan.add(Weight::Note, "unowned", text);
    }
    for database in [&mut the_move.source, &mut the_move.target] {
        for transaction in slot::long_transactions(&mut database.connection, Duration::from_secs(5)).await? {
            let text = format!("{}: {transaction}; a new replication slot waits for its end", database.address());
            plan.add(Weight::Warning, "transactions", text);
        }
    }
    for crossing in crossings::list(the_move).await? {
        let text = format!("{}. The copy may begin, but the cutover is refused until then", crossing.trim_end_matches('.'));
        plan.add(Weight::Warning, "crossings", text);
    }
    plan.findings.sort_by_key(|finding| finding.weight);
    Ok(plan)
}

async fn check_open_moves(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    let Some(open) = the_move.journal.find_open().await? else { return Ok(()) };
    let owner = open.owner;
    if owner == plan.owner {
        let text = format!("{owner}: its move is open already: `splitctl status {owner}` shows how far it is");
        plan.add(Weight::Note, "move", text);
    } else {
        plan.add(Weight::Error, "move", format!("{owner}: a move of {owner} is open: complete or abort it first"));
    }
    Ok(())
}

async fn run_checks(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    let views: Vec<String> = owner.views.iter().map(Qualified::sql).collect();
    for database in [source, target] {
        let (side, address) = (database.side, database.address());
        let connection = &mut database.connection;
        let oids = relations::oids(connection, &owner.tables).await?;
        for check in CHECKS.check.iter().filter(|check| check.on.is_none_or(|on| on == side)) {
            let found = query_as(check.statement.as_str()).bind(&oids).bind(state.is_open()).bind(&owner.role).bind(&views);
            for Found { object, detail } in found.fetch_all(&mut *connection).await? {
                let object = object.as_ref().unwrap_or(&address);
                let text = format!("{object}: {}", check.message.replace("{}", &detail));
                let (weight, text) =
                    if check.acceptable { weigh(owner, check, object, &text) } else { (check.weight, text) };
                plan.add(weight, &check.name, text);
            }
        }
    }
    Ok(())
}

/// What the owner's `accept` names is a warning; anything else names the entry to add.
fn weigh(owner: &Owner, check: &Check, object: &str, text: &str) -> (Weight, String) {
    let entry = format!("{}: {object}", check.name);
    if owner.accept.contains(&entry) {
        return (Weight::Warning, format!("{text}. The manifest accepts it"));
    }
    (check.weight, format!("{text}. To move all the same, add \"{entry}\" to `accept` of the owner in the manifest"))
}

/// Tries both streams, and changes nothing: the way back is needed for the first time when the switch is made.
async fn try_streams(plan: &mut Plan, Move { source, target, .. }: &mut Move) -> Result<()> {
    let tried = [stream::try_subscription(source, target).await, stream::try_subscription(target, source).await];
    for refused in tried.into_iter().filter_map(Result::err) {
        plan.add(Weight::Error, "connections", format!("{refused:#}"));
    }
    Ok(())
}

/// Says how much the copy has to do, and what it does with tables that have no key.
async fn measure(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    let known = relations::tables(&mut source.connection, &owner.tables).await?;
    for table in owner.tables.iter().filter(|table| !known.iter().any(|known| known.name == **table)) {
        plan.add(Weight::Error, "tables", format!("{table}: the source has no such table: correct the manifest"));
    }
    plan.rows = known.iter().map(|table| table.estimate).sum();
    plan.bytes = known.iter().map(|table| table.bytes).sum();
    let (tables, megabytes) = (known.len(), plan.bytes / 1_000_000);
    plan.add(Weight::Note, "tables", format!("{tables} tables, about {} rows, {megabytes} MB without indexes", plan.rows));
    for table in known.iter().filter(|table| table.key.is_empty()) {
        let text = format!(
            "{}: no key identifies a row, so `copy` sets its replica identity to full: its updates become slower",
            table.name
        );
        plan.add(Weight::Warning, "keys", text);
    }
    if source.identity.system == target.identity.system {
        let text = format!(
            "source and target are one cluster: the transactions of the first copy ({megabytes} MB) hold the horizon back, \
             and event feeds wait for them"
        );
        plan.add(Weight::Warning, "cluster", text);
    }
    Ok(())
}
