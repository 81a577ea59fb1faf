//! The plan: everything that would stop or surprise a move, all findings at once. It changes nothing.

mod abilities;
mod along;
pub mod code;
mod failover;
mod logins;
mod memberships;
mod nobodys;
mod others;
mod paths;
mod places;
mod role;
pub mod servers;
mod settings;
mod target;
mod there;
pub mod wal;

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, query_as};
use tokio::task::JoinSet;

use super::crossings::{Standing, Way};
use super::inventory::Inventory;
use super::schema::pg_dump;
use super::side::{Database, Side};
use super::{Move, applier, crossings, relations, rights, slot, subscription, unowned};
use crate::manifest::Owner;
use crate::names::Qualified;
pub use settings::write_value;

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

impl fmt::Display for Weight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
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
    /// The number of rows to copy, as the planner estimates it.
    pub rows: i64,
    /// The bytes to copy, without indexes.
    pub bytes: i64,
}

impl Plan {
    /// The findings that stop the copy.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Error)
    }

    /// Adds a finding.
    pub fn add(&mut self, weight: Weight, check: &str, text: impl Into<String>) {
        self.findings.push(Finding { weight, check: check.to_owned(), text: text.into() });
    }
}

/// The checks that one statement makes: errors, then warnings.
static CHECKS: LazyLock<Checks> =
    LazyLock::new(|| toml::from_str(include_str!("checks.toml")).expect("the list of checks is TOML"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checks {
    /// What `{columns}` in a statement stands for.
    columns: String,
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
    let inventory = the_move.read_inventory().await?;
    make_of(the_move, &inventory).await
}

/// Does the same for an inventory of the source that was just read.
///
/// # Errors
/// As [`make`].
pub async fn make_of(the_move: &mut Move, inventory: &Inventory) -> Result<Plan> {
    let mut plan = Plan { owner: the_move.owner_name.clone(), findings: Vec::new(), rows: 0, bytes: 0 };
    // The program works while the checks do.
    let pg_dump = JoinSet::from_iter([try_pg_dump(the_move.source.version, the_move.source.url.clone())]);
    check_open_moves(&mut plan, the_move).await?;
    if let (true, Err(error)) = (the_move.target.superuser, pg_dump::find_psql()) {
        plan.add(Weight::Error, "psql", format!("{error:#}"));
    }
    run_checks(&mut plan, the_move).await?;
    measure(&mut plan, the_move).await?;
    let users = rights::read_of(&mut the_move.source.connection, &the_move.owner, inventory).await?.roles;
    target::check(&mut plan, the_move, &users).await?;
    abilities::check(&mut plan, the_move).await?;
    along::check(&mut plan, the_move, inventory).await?;
    let logins = logins::read(the_move, &users).await?;
    settings::check(&mut plan, the_move, &logins).await?;
    role::check(&mut plan, the_move, &logins).await?;
    memberships::check(&mut plan, the_move, &users).await?;
    logins::check(&mut plan, the_move, &logins).await?;
    others::check(&mut plan, the_move).await?;
    failover::check(&mut plan, the_move).await?;
    try_streams(&mut plan, the_move).await?;
    nobodys::check(&mut plan, the_move, inventory).await?;
    for text in unowned::describe(the_move).await? {
        plan.add(Weight::Note, "unowned", text);
    }
    for database in [&mut the_move.source, &mut the_move.target] {
        for transaction in slot::long_transactions(&mut database.connection, Duration::from_secs(5)).await? {
            let text = format!("{}: {transaction}; a new replication slot waits for its end", database.address());
            plan.add(Weight::Warning, "transactions", text);
        }
    }
    for Standing { text, way } in crossings::describe_of(the_move, inventory).await? {
        match way {
            Way::Command(_) => {
                let text = format!("{text}. The copy may begin, but the cutover is refused until then");
                plan.add(Weight::Warning, "crossings", text);
            }
            Way::Person => plan.add(Weight::Error, "crossings", text),
            Way::Plan => {}
        }
    }
    for tried in pg_dump.join_all().await {
        if let Err(error) = tried {
            plan.add(Weight::Error, "pg_dump", format!("{error:#}"));
        }
    }
    plan.findings.sort_by_key(|finding| finding.weight);
    Ok(plan)
}

/// Tries the program that reads the definitions: it connects by libpq, which splitctl's own sessions do not.
async fn try_pg_dump(version: i32, url: String) -> Result<()> {
    let program = pg_dump::find(version).await?;
    pg_dump::try_connection(&program, &url).await
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

/// Runs the statements of both sides at once.
async fn run_checks(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    let views: Vec<String> = owner.views.iter().map(Qualified::sql).collect();
    let has_applier = applier::applies(source) && applier::applies(target);
    let check = async |database: &mut Database| {
        let (side, address, mut findings) = (database.side, database.address(), Vec::new());
        let connection = &mut database.connection;
        let oids = relations::oids(connection, &owner.tables).await?;
        for check in CHECKS.check.iter().filter(|check| check.on.is_none_or(|on| on == side)) {
            let statement = check.statement.replace("{columns}", &CHECKS.columns);
            let found =
                query_as(AssertSqlSafe(statement)).bind(&oids).bind(state.is_open()).bind(side.role_of(owner)).bind(&views);
            let found = found.bind(has_applier);
            for Found { object, detail } in found.fetch_all(&mut *connection).await? {
                let object = object.as_ref().unwrap_or(&address);
                let text = format!("{object}: {}", check.message.replace("{}", &detail));
                let (weight, text) =
                    if check.acceptable { weigh(owner, check, object, &text) } else { (check.weight, text) };
                findings.push(Finding { weight, check: check.name.clone(), text });
            }
        }
        anyhow::Ok(findings)
    };
    let (of_source, of_target) = tokio::try_join!(check(source), check(target))?;
    plan.findings.extend(of_source.into_iter().chain(of_target));
    Ok(())
}

/// What the owner's `accept` names is a warning; anything else names the entry to add.
fn weigh(owner: &Owner, check: &Check, object: &str, text: &str) -> (Weight, String) {
    match weigh_entry(owner, &format!("{}: {object}", check.name), text) {
        (Weight::Error, text) => (check.weight, text),
        accepted => accepted,
    }
}

/// An error, unless the owner's `accept` has this entry.
fn weigh_entry(owner: &Owner, entry: &str, text: &str) -> (Weight, String) {
    if owner.accept.iter().any(|accepted| accepted == entry) {
        return (Weight::Warning, format!("{text}. The manifest accepts it"));
    }
    (Weight::Error, format!("{text}. To move all the same, add {entry:?} to `accept` of the owner in the manifest"))
}

/// Tries both streams, and changes nothing: the way back is needed for the first time when the switch is made.
async fn try_streams(plan: &mut Plan, Move { source, target, .. }: &mut Move) -> Result<()> {
    let tried = [subscription::try_subscription(source, target).await, subscription::try_subscription(target, source).await];
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
