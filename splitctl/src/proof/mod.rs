//! The proof: what the application does where its tables live works on the other side too, as its own role there.
//!
//! Every statement that it is known to run is prepared and planned on both sides. A statement that works where the tables
//! live, and not on the proven side, is an error. Everything happens in transactions that are rolled back.

mod compare;
mod known;
mod login;
mod logs;
mod names;
mod outside;
mod plans;
mod result;
mod session;
mod tables;
pub mod unbrought;
pub mod writes;

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::query_scalar;

use crate::database::{choose, describe, sqlstate};
use crate::manifest::KnownStatement;
use crate::moving::plan::Weight;
use crate::moving::{Move, Side};
use crate::names::{Qualified, quote_ident};
use compare::{Comparison, Verdict};
use known::{Known, Statement};
use names::{Names, words};
use outside::Outside;
pub use result::{Finding, Proof, Unchecked, Written};
use session::{Facts, Mode, Session, Setting};

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Statements are planned; nothing is run.
    Plans,
    /// Each table also gets one insert, one update and one delete, which are rolled back.
    Writes {
        /// Whether triggers run that reach outside of the database.
        reach_outside: bool,
    },
}

/// Proves a side.
///
/// # Errors
/// If a database does not answer, or a file of statements cannot be read. What is wrong with the side is a finding.
pub async fn prove(the_move: &mut Move, on: Side, extent: Extent) -> Result<Proof> {
    let known = Known::read(the_move).await?;
    let mut proof = Proof::of(on);
    let owner = the_move.owner.clone();
    if let Some(finding) = find_obstacle(the_move, on).await? {
        proof.add(&owner, finding);
        return Ok(proof);
    }
    let more = log_in(&mut proof, the_move, on).await?;
    let opened = match open(the_move, on.other(), &more, Mode::ReadOnly).await {
        Ok(before) => open(the_move, on, &more, Mode::ReadOnly).await.map(|after| (before, after)),
        Err(error) => Err(error),
    };
    let ((mut before, facts_before), (mut after, facts_after)) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            proof.add(&owner, not_opened(error, the_move.role(on))?);
            return Ok(proof);
        }
    };
    for finding in different(&facts_before, &facts_after, on) {
        proof.add(&owner, finding);
    }
    check_statements(&mut proof, the_move, &known, (&mut before, &mut after)).await?;
    before.close().await?;
    after.close().await?;
    let lives = the_move.lives();
    let outside = Outside::read(&mut the_move.database(lives).connection, &owner.tables).await?;
    proof.outside.clone_from(&outside.listed);
    if let Extent::Writes { reach_outside } = extent {
        writes::trial::check(&mut proof, the_move, &more, &outside, reach_outside).await?;
    }
    proof.findings.sort_by_key(|finding| finding.weight);
    Ok(proof)
}

/// The statements that the application is known to run, and notes on how more would be known.
pub async fn known_statements(the_move: &mut Move) -> Result<(Vec<KnownStatement>, Vec<String>)> {
    let mut known = Known::read(the_move).await?;
    let notes = std::mem::take(&mut known.notes);
    Ok((known.elsewhere(), notes))
}

/// The tables with triggers or functions that reach outside of the database.
pub async fn reaching_outside(the_move: &mut Move) -> Result<Vec<Qualified>> {
    let lives = the_move.lives();
    let tables = the_move.owner.tables.clone();
    let outside = Outside::read(&mut the_move.database(lives).connection, &tables).await?;
    Ok(tables.into_iter().filter(|table| outside.of(table).is_some()).collect())
}

/// Why nothing can be proven.
async fn find_obstacle(the_move: &mut Move, on: Side) -> Result<Option<Finding>> {
    for side in [on.other(), on] {
        let role = the_move.role(side).to_owned();
        let is_superuser = "select rolsuper from pg_roles where rolname = $1";
        let is_superuser: Option<bool> =
            query_scalar(is_superuser).bind(&role).fetch_optional(&mut the_move.database(side).connection).await?;
        let (weight, text) = match is_superuser {
            Some(false) => continue,
            None => (Weight::Error, format!("{role}: the {side} has no such role: create it")),
            Some(true) => {
                let why = "no statement of the application is tried as a superuser, so nothing is proven";
                (Weight::Warning, format!("{role}: it is a superuser on the {side}: {why}"))
            }
        };
        return Ok(Some(Finding::new(weight, "role", text)));
    }
    let has_tables = !the_move.relations(on).await?.is_empty();
    let text = format!("the {on} has none of the tables: `splitctl copy {}` first", the_move.owner_name);
    Ok((!has_tables).then(|| Finding::new(Weight::Error, "tables", text)))
}

/// Uses the application's login, if the manifest names one and the side is the target. Returns the settings of its URL.
async fn log_in(proof: &mut Proof, the_move: &mut Move, on: Side) -> Result<Vec<Setting>> {
    let owner = the_move.owner.clone();
    let Some(login) = owner.login.as_ref().filter(|_| on == Side::Target) else { return Ok(Vec::new()) };
    let url = choose(&login.resolve(&format!("owners.{}.login", the_move.owner_name))?).await?;
    match login::try_login(&url, &the_move.target, the_move.role(on)).await? {
        Ok(settings) => {
            proof.own_login = true;
            Ok(settings)
        }
        Err(why) => {
            proof.add(&owner, Finding::new(Weight::Error, "login", why));
            Ok(Vec::new())
        }
    }
}

async fn open(the_move: &mut Move, side: Side, more: &[Setting], mode: Mode) -> Result<(Session, Facts)> {
    let opening = the_move.opening(side).await?;
    let role = the_move.role(side).to_owned();
    Session::open(the_move.database(side), &role, &opening, more, mode).await
}

/// Says why no session of the role can be opened, and what to do.
///
/// # Errors
/// The error itself if the server did not answer.
fn not_opened(error: anyhow::Error, role: &str) -> Result<Finding> {
    let Some(state) = error.downcast_ref::<sqlx::Error>().and_then(sqlstate) else { return Err(error) };
    let next = match state.as_str() {
        "42501" => format!("grant the role {} to splitctl's role, so that splitctl may become it", quote_ident(role)),
        "55P03" => "try at a quieter time".to_owned(),
        _ => "correct this, and see `splitctl plan`".to_owned(),
    };
    let text = format!("{}. Nothing is proven: {next}", describe(&error));
    // An operator with few rights need not be a member of the application's role to move its tables.
    let weight = if state == "42501" { Weight::Warning } else { Weight::Error };
    Ok(Finding { sqlstate: Some(state), ..Finding::new(weight, "session", text) })
}

/// The settings that differ.
fn different(before: &Facts, after: &Facts, on: Side) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Versions know different settings. Those of extensions and applications have a dot, and exist once they are set.
    let of = |facts: &Facts, name: &str| match facts.settings.get(name) {
        None if name.contains('.') => Some("nothing".to_owned()),
        value => value.map(|value| format!("`{value}`")),
    };
    for name in before.settings.keys().chain(after.settings.keys().filter(|name| !before.settings.contains_key(*name))) {
        let (Some(one), Some(other)) = (of(before, name), of(after, name)) else { continue };
        if one == other {
            continue;
        }
        let stops = name == "default_transaction_read_only" && other == "`on`";
        let weight = if stops { Weight::Error } else { Weight::Warning };
        let text = format!(
            "{name}: the application's sessions have {other} on the {on}, and {one} on the {}: set it for the role or the \
             database, unless that is meant",
            on.other()
        );
        findings.push(Finding::new(weight, format!("setting {name}"), text));
    }
    findings
}

/// Has both sides prepare and plan all statements, and compares what they say.
async fn check_statements(
    proof: &mut Proof,
    the_move: &mut Move,
    known: &Known,
    (before, after): (&mut Session, &mut Session),
) -> Result<()> {
    let owner = the_move.owner.clone();
    for note in &known.notes {
        proof.add(&owner, Finding::new(Weight::Note, "statements", note));
    }
    let mut statements = known.statements();
    if statements.is_empty() {
        let text = "no statement of the application is known: name `statements` or `queries` of the owner in the manifest";
        proof.add(&owner, Finding::new(Weight::Warning, "statements", text));
    }
    let known = statements.len();
    for table in tables::read(&mut before.connection, &owner.relations()).await? {
        statements.extend(table.statements());
    }
    let foreign = compare_all(proof, the_move, &statements, (before, after)).await?;
    proof.statements = known - proof.unchecked.len() - foreign;
    if foreign > 0 {
        let text = format!("{foreign} statements of the role use only tables that stay: they are another part's");
        proof.add(&owner, Finding::new(Weight::Note, "statements", text));
    }
    Ok(())
}

/// Compares the answers of both sides. Returns the number of statements that are another part's.
async fn compare_all(
    proof: &mut Proof,
    the_move: &mut Move,
    statements: &[Statement],
    (before, after): (&mut Session, &mut Session),
) -> Result<usize> {
    let (on, owner) = (proof.side, the_move.owner.clone());
    let names: BTreeSet<String> =
        statements.iter().flat_map(|statement| words(&statement.text)).map(|word| word.name).collect();
    let (answers_before, answers_after) = tokio::try_join!(plans::ask(before, statements), plans::ask(after, statements))?;
    let moving: BTreeSet<Qualified> = the_move.relations(on.other()).await?.into_iter().collect();
    let is_shared = the_move.shares_role(on.other()).await?;
    let comparison = Comparison {
        on,
        role: the_move.role(on),
        moving: &moving,
        is_shared,
        before: &Names::read(before, &names).await?,
        after: &Names::read(after, &names).await?,
    };
    let mut foreign = 0;
    for (statement, (one, other)) in statements.iter().zip(answers_before.iter().zip(&answers_after)) {
        match comparison.judge(statement, one, other) {
            Verdict::Works => {}
            Verdict::Foreign => foreign += 1,
            Verdict::Unchecked(unchecked) => proof.unchecked.push(unchecked),
            Verdict::Differs(weight, text, sqlstate) => {
                let text = format!("{}: {text}", statement.described());
                let finding = Finding::new(weight, &statement.subject, text);
                proof.add(&owner, Finding { sqlstate, statement: Some(statement.shown()), ..finding });
            }
        }
    }
    Ok(foreign)
}
