//! Undoes a move that is not complete. Only the journal keeps it.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::fence::Locking;
use super::journal::{Journal, State, Step};
use super::side::{Database, Side};
use super::switches::Switch;
use super::{Move, cleanup, crash_point, crossings, relations, rights, schema, sequences, slot, stream, unowned, versions};
use crate::database::{describe, execute};
use crate::endpoint::Endpoint;
use crate::exit::require;
use crate::manifest::{Manifest, Owner};
use crate::names::Qualified;

/// The result of an abort.
#[derive(Debug, Serialize)]
pub struct Aborted {
    /// The owner.
    pub owner: String,
    /// What happened to the target's tables.
    pub target: &'static str,
    /// The number of foreign keys that were created again.
    pub attached: usize,
    /// The number of views, functions and triggers that were created again.
    pub attached_others: usize,
    /// Why not all of them could be created again.
    pub not_attached: Option<String>,
}

/// Ends the streams, removes triggers and publications, and empties the target.
///
/// # Errors
/// [`crate::exit::Refused`] while the tables live in the target: roll back first.
pub async fn run(the_move: &mut Move, locking: Locking) -> Result<Aborted> {
    the_move.check_open()?;
    check(&the_move.state, &the_move.owner_name)?;
    the_move.journal.intend(Step::Abort, json!({})).await?;
    crash_point("abort intended");
    stream::end_all(&mut the_move.source, &mut the_move.target, &the_move.state.names).await?;
    crash_point("streams ended");
    cleanup::run(the_move, locking).await?;
    empty_target(the_move).await?;
    crash_point("target emptied");
    let Move { owner_name, source, journal, state, .. } = the_move;
    let target = if state.begun.made_tables { "dropped" } else { "emptied" };
    end(source, journal, owner_name, state, locking, target).await
}

/// What happens to the rows that only a lost target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// There must be none: the tables live in the source.
    Keep,
    /// They are given up.
    GiveUp,
}

/// Does the same if the target is gone for good: it cleans the source alone. If the tables lived in the target, the source
/// is opened again with the rows that have arrived there.
///
/// # Errors
/// [`crate::exit::Refused`] if the source says that the tables live in the target, and its rows are not given up.
pub async fn without_target(manifest: &Path, owner_name: &str, locking: Locking, rows: Rows) -> Result<Aborted> {
    let manifest = Manifest::read(manifest)?;
    let (url, owner) = (manifest.source.resolve("source")?, manifest.owner(owner_name)?);
    let endpoint = Endpoint::of_this_process(&url)?;
    let mut source = Database::open(Side::Source, url, endpoint).await?;
    versions::check(&mut source).await?;
    let mut journal = Journal::open(&source, owner_name).await?;
    journal.lock().await?;
    let state = journal.read(&source.identity, None).await?;
    require!(state.is_open(), "no move of {owner_name} is open");
    require!(
        state.switch.lives == Side::Source || rows == Rows::GiveUp,
        "{owner_name}: the tables live in the target. If it is gone for good, and you accept that rows are lost, run \
         `splitctl abort {owner_name} --without-target --give-up-rows`: it opens the source again, with the rows that have \
         arrived there"
    );
    journal.intend(Step::Abort, json!({ "without": "target", "rows given up": rows == Rows::GiveUp })).await?;
    stream::forsake(&mut source.connection, &state.names).await?;
    slot::drop_all(&mut source.connection, &[state.names.all_streams()]).await?;
    if state.switch.lives == Side::Target {
        reopen(&mut source, owner, &state).await?;
    }
    cleanup::clean(&mut source, owner_name, &state, locking).await?;
    let target = "left as they are, and so is the subscription there";
    end(&mut source, &mut journal, owner_name, &state, locking, target).await
}

fn check(state: &State, owner_name: &str) -> Result<()> {
    require!(
        state.switch.lives == Side::Source,
        "{owner_name}: the tables live in the target: run `splitctl rollback {owner_name}` first, or `splitctl complete \
         {owner_name}`"
    );
    require!(
        state.pending != Some(Step::Rollback),
        "{owner_name}: the rollback is not done: repeat `splitctl rollback {owner_name}`"
    );
    Ok(())
}

/// Gives the rights back that the source had, and advances its sequences behind the rows that have arrived.
async fn reopen(source: &mut Database, owner: &Owner, state: &State) -> Result<()> {
    let grants = rights::known_to(source, state.kept.opening(owner, Side::Source)).await?;
    let sequences = sequences::behind_rows(&mut source.connection, &state.begun.tables).await?;
    let statements = [grants, sequences].concat().join("; ");
    execute(&mut source.connection, format!("begin; {statements}; commit"))
        .await
        .context("the source cannot be opened to the roles that used the tables")
}

async fn empty_target(Move { owner, target, state, .. }: &mut Move) -> Result<()> {
    let connection = &mut target.connection;
    let known = relations::tables(connection, &state.begun.tables).await?;
    let tables: Vec<Qualified> = known.into_iter().map(|table| table.name).collect();
    execute(connection, unowned::dropping(&state.begun.unowned)).await.context("the target's tables cannot be removed")?;
    if !tables.is_empty() {
        empty_tables(owner, target, state, &tables).await?;
    }
    schema::undo(target, &state.begun.undo).await?;
    schema::drop_made(target, &state.begun.made).await
}

async fn empty_tables(owner: &Owner, target: &mut Database, state: &State, tables: &[Qualified]) -> Result<()> {
    let connection = &mut target.connection;
    let statement = if state.begun.made_tables {
        format!("begin; {}; commit", schema::dropping(connection, tables, &owner.views).await?)
    } else {
        format!("truncate {}", relations::list(tables))
    };
    execute(&mut *connection, statement).await.context("the target's tables cannot be removed")?;
    if !state.begun.made_tables && !state.begun.by_hand.is_empty() {
        let grants = rights::known_to(target, state.begun.by_hand.clone()).await?.join("; ");
        execute(&mut target.connection, format!("begin; {grants}; commit"))
            .await
            .context("the target's rights cannot be given back")?;
    }
    Ok(())
}

/// Creates again what `detach` dropped, and writes where the tables live.
async fn end(
    source: &mut Database,
    journal: &mut Journal,
    owner_name: &str,
    state: &State,
    locking: Locking,
    target: &'static str,
) -> Result<Aborted> {
    // An abort goes on although an object does not come back: an open move would make the source keep its WAL.
    let (restored, not_attached) = match crossings::attach_all(source, journal, state, locking).await {
        Ok(restored) => (restored, None),
        Err(error) => (Vec::new(), Some(describe(&error))),
    };
    let attached = restored.iter().filter(|crossing| crossing.kind == crossings::Kind::ForeignKey).count();
    let attached_others = restored.len() - attached;
    if state.switch.generation > 0 {
        // A service that starts later must not go by an old switch.
        let here = Switch { generation: state.switch.generation + 1, lives: Side::Source, way_back: None };
        execute(&mut source.connection, here.statement(owner_name)).await?;
    }
    journal.record(Step::Abort, json!({ "not attached": not_attached })).await?;
    Ok(Aborted { owner: owner_name.to_owned(), target, attached, attached_others, not_attached })
}
