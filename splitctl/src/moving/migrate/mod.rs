//! A migration of the definitions while a move stands: on both sides, each statement in the order that the stream survives.
//!
//! The stream sends rows with the columns that the sender has. So the side that receives must have every column, and take
//! every value, that the other side may send: what adds goes there first, and what takes away goes there last.

mod effect;
mod files;
pub(super) mod planned;
mod run;
mod script;
mod seen;
mod trial;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use sqlx::query_scalar;

use super::fence::{self, Locking};
use super::journal::Step;
use super::side::Side;
use super::{Move, crash_point, definitions, hanging, rights, shape};
use crate::database::server_error;
use crate::exit::{Refused, require};
use files::Migration;
use planned::{Begun, Planned};
use run::{Run, list_done};
use script::Statement;

pub use files::Source;
pub use planned::Way;
pub use run::forget;

/// A migration that was run, or would be.
#[derive(Debug, Serialize)]
pub struct Migrated {
    /// Its name.
    pub name: String,
    /// Its statements, without what stands in quotes, and the way of each.
    pub statements: Vec<(Way, String)>,
}

/// All migrations that the command found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The owner.
    pub owner: String,
    /// Whether nothing was run.
    pub dry_run: bool,
    /// The migrations.
    pub migrations: Vec<Migrated>,
}

/// Runs migrations on both sides.
///
/// # Errors
/// [`Refused`] with the statement that no stream survives, or that a side has refused. It may be repeated.
pub async fn run(the_move: &mut Move, source: &Source, locking: Locking, dry_run: bool) -> Result<Report> {
    check(the_move)?;
    let lives = the_move.state.switch.lives;
    let (from, _) = lives.order(&mut the_move.source, &mut the_move.target);
    let found = source.read(from).await?;
    let migrations = if dry_run { try_all(the_move, &found).await? } else { run_all(the_move, &found, locking).await? };
    Ok(Report { owner: the_move.owner_name.clone(), dry_run, migrations })
}

async fn run_all(the_move: &mut Move, found: &[Migration], locking: Locking) -> Result<Vec<Migrated>> {
    let mut migrations = Vec::new();
    for migration in found {
        let migrated = run_one(the_move, migration, locking).await;
        migrations.push(migrated.with_context(|| format!("the migration {}", migration.name))?);
    }
    Ok(migrations)
}

/// Tries all migrations in one go, because a later one may need what an earlier one makes.
async fn try_all(the_move: &mut Move, found: &[Migration]) -> Result<Vec<Migrated>> {
    let (mut statements, mut done) = (Vec::new(), BTreeSet::new());
    let mut ends = Vec::new();
    for migration in found {
        let begin = i32::try_from(statements.len())?;
        let id = hash(the_move, migration).await?;
        done.extend(read_done(the_move, &id).await?.into_iter().map(|nth| begin + nth));
        statements.extend(Statement::all(&migration.script));
        ends.push(statements.len());
    }
    let Move { owner, source, target, state, .. } = the_move;
    let (_, to) = state.switch.lives.order(source, target);
    let planned = trial::plan(owner, to, &statements, &done, false).await?;
    let begins = [0].into_iter().chain(ends.iter().copied());
    let migrated = found.iter().zip(begins.zip(&ends)).map(|(migration, (begin, end))| Migrated {
        name: migration.name.clone(),
        statements: list(&planned[begin..*end], &statements[begin..*end]),
    });
    Ok(migrated.collect())
}

fn list(planned: &[Planned], statements: &[Statement]) -> Vec<(Way, String)> {
    planned.iter().zip(statements).map(|(planned, statement)| (planned.way, statement.shown())).collect()
}

fn check(the_move: &Move) -> Result<()> {
    the_move.check_open()?;
    let Move { owner_name, state, .. } = the_move;
    state.check_not_ending(owner_name)?;
    require!(state.copied, "{owner_name}: the copy is not done: `splitctl copy {owner_name}`");
    if let Some(step) = state.pending.filter(|step| *step != Step::Migrate) {
        require!(false, "{owner_name}: `splitctl {step}` has begun and is not done: repeat `splitctl {step} {owner_name}`");
    }
    Ok(())
}

async fn run_one(the_move: &mut Move, migration: &Migration, locking: Locking) -> Result<Migrated> {
    let statements = Statement::all(&migration.script);
    let begun = begin(the_move, migration, &statements).await?;
    let mut run = Run::open(the_move, &begun.id, locking).await?;
    for (nth, (planned, statement)) in (1..).zip(begun.statements.iter().zip(&statements)) {
        if let Err(error) = run.step(nth, planned, statement).await {
            let standing = stop(the_move, nth, locking).await?;
            let which = format!("statement {nth} of {} ({})", statements.len(), statement.shown());
            return Err(explain(error, &which, &standing));
        }
    }
    require_same_shape(the_move).await?;
    let (from, to) = the_move.state.switch.lives.order(&mut the_move.source, &mut the_move.target);
    migration.record(from, to).await?;
    crash_point("migration recorded");
    finish(the_move, locking).await?;
    Ok(Migrated { name: migration.name.clone(), statements: list(&begun.statements, &statements) })
}

/// Plans a migration, or continues the one that was begun.
async fn begin(the_move: &mut Move, migration: &Migration, statements: &[Statement]) -> Result<Begun> {
    let id = hash(the_move, migration).await?;
    if let Some(begun) = &the_move.state.migrating {
        let owner_name = &the_move.owner_name;
        require!(
            begun.id == id,
            "{owner_name}: another migration has begun and is not done: repeat `splitctl migrate {owner_name} {}`, with the \
             file as it was",
            begun.again
        );
        return Ok(begun.clone());
    }
    let done = read_done(the_move, &id).await?;
    let Move { owner, owner_name, source, target, journal, state, .. } = &mut *the_move;
    let (from, to) = state.switch.lives.order(source, target);
    let planned = trial::plan(owner, to, statements, &done, migration.is_alone).await?;
    let begun = Begun { id, again: migration.again.clone(), statements: planned };
    for side in [from, to] {
        run::prepare(&mut side.connection, owner_name).await?;
    }
    journal.intend(Step::Migrate, &begun).await?;
    crash_point("migration intended");
    the_move.read_state().await?;
    Ok(begun)
}

/// Identifies a migration by its text.
async fn hash(the_move: &mut Move, migration: &Migration) -> Result<String> {
    let hash = query_scalar("select encode(sha256(convert_to($1, 'UTF8')), 'hex')").bind(&migration.script);
    Ok(hash.fetch_one(&mut the_move.source.connection).await?)
}

/// The statements that have run on either side.
async fn read_done(the_move: &mut Move, id: &str) -> Result<BTreeSet<i32>> {
    let Move { owner_name, source, target, .. } = the_move;
    let mut done = BTreeSet::new();
    for side in [source, target] {
        done.extend(list_done(&mut side.connection, owner_name, id).await?);
    }
    Ok(done)
}

/// The answer of a server is a refusal; anything else may have had an unknown outcome.
fn explain(error: anyhow::Error, which: &str, standing: &str) -> anyhow::Error {
    let said = match server_error(&error) {
        Some(server) => server.message().to_owned(),
        None if error.chain().any(|cause| cause.is::<Refused>()) => format!("{error:#}"),
        None => return error.context(format!("{which}: {standing}")),
    };
    Refused(format!("{which}: {said}. {standing}")).into()
}

/// After a failure: if both sides are alike, the move stands as if the rest of the file did not exist.
async fn stop(the_move: &mut Move, nth: i32, locking: Locking) -> Result<String> {
    if differences(the_move).await?.is_empty() {
        finish(the_move, locking).await?;
        return Ok(format!(
            "Both sides are alike, and the statements before it are done. Correct the reason and repeat the command, which \
             continues with statement {nth}"
        ));
    }
    Ok("It is done on one side only: correct the reason and repeat the command".to_owned())
}

async fn require_same_shape(the_move: &mut Move) -> Result<()> {
    let differences = differences(the_move).await?;
    require!(
        differences.is_empty(),
        "the definitions of both sides differ (- source, + target): {}. Make them alike by hand, and repeat the command",
        differences.join("; ")
    );
    Ok(())
}

async fn differences(Move { owner, source, target, .. }: &mut Move) -> Result<Vec<String>> {
    let here = shape::read(&mut source.connection, owner).await?;
    Ok(shape::differences(&here, &shape::read(&mut target.connection, owner).await?))
}

/// Closes what is new on the side that receives, guards the new definitions, and records them.
async fn finish(the_move: &mut Move, locking: Locking) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = &mut *the_move;
    for database in [&mut *source, &mut *target] {
        fence::run_for_each(&mut database.connection, &owner.tables, fence::GUARD, locking).await?;
    }
    let (_, to) = state.switch.lives.order(source, target);
    rights::revoke(&mut to.connection, owner).await?;
    if to.side == Side::Source {
        fence::complete(&mut to.connection, owner_name, &owner.tables, locking).await?;
    }
    for database in [source, target] {
        definitions::guard(database, owner_name, &owner.tables).await?;
    }
    crash_point("migration guarded");
    let Move { owner, source, target, journal, .. } = &mut *the_move;
    let shape = shape::read(&mut source.connection, owner).await?;
    let known = hanging::know(owner, source, target).await?;
    journal.record(Step::Migrate, json!({ "shape": shape, "hanging": known })).await?;
    the_move.read_state().await
}
