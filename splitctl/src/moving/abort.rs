//! Takes a move back that has not been completed: nothing of it is left but the journal.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::fence::Locking;
use super::journal::{self, State, Switch, append};
use super::side::{Place, Side};
use super::stream::Names;
use super::{Move, complete, crash_point, crossings, lock, relations, slot, stream};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::manifest::Manifest;

/// What was taken back.
#[derive(Debug, Serialize)]
pub struct Aborted {
    /// Whose move.
    pub owner: String,
    /// What became of the target's tables.
    pub target: &'static str,
    /// Foreign keys that were put back.
    pub attached: usize,
    /// Why others were not.
    pub not_attached: Option<String>,
}

/// Ends the streams, takes triggers and publications away, and empties the target again.
///
/// # Errors
/// [`Refused`] while the tables live in the target: that takes a rollback first.
pub async fn run(moving: &mut Move, locking: Locking) -> Result<Aborted> {
    let state = moving.state()?.clone();
    let name = moving.owner.clone();
    let names = moving.names(state.number);
    check(&state, &name)?;
    append(&mut moving.source.connection, state.number, &name, "abort", "intent", &json!({})).await?;
    crash_point("abort intended");
    stream::end_all(&mut moving.source, &mut moving.target, &names).await?;
    crash_point("streams ended");
    complete::clean(moving, locking).await?;
    empty_target(moving, &state).await?;
    crash_point("target emptied");
    let target = if state.begun.made_tables { "dropped" } else { "emptied" };
    end(&mut moving.source, &name, &state, locking, target).await
}

/// The same where the target is gone for good: the source alone is cleaned.
///
/// # Errors
/// [`Refused`] if the source says that the tables live in the target.
pub async fn without_target(manifest: &Path, owner: &str, locking: Locking) -> Result<Aborted> {
    let manifest = Manifest::read(manifest)?;
    let url = manifest.source.resolve("source")?;
    let mut source = Side::open(Place::Source, url.clone(), url).await?;
    let _lock = lock(&source).await?;
    let state = journal::read(&mut source.connection, None, owner).await?;
    let state = state.ok_or_else(|| Refused(format!("no move of {owner} is open")))?;
    check(&state, owner)?;
    let names = Names::new(owner, state.number, source.identity.database);
    append(&mut source.connection, state.number, owner, "abort", "intent", &json!({ "without": "target" })).await?;
    slot::all_dropped(&mut source.connection, &names).await?;
    complete::clean_side(&mut source, &names, owner, &state, locking).await?;
    end(&mut source, owner, &state, locking, "left as they are, and so is the subscription there").await
}

fn check(state: &State, owner: &str) -> Result<()> {
    require!(
        state.lives == Place::Source,
        "the tables live in the target: `splitctl rollback {owner}` first, or `splitctl complete {owner}`"
    );
    require!(
        state.pending.as_deref() != Some("rollback"),
        "the rollback has not come to its end: repeat `splitctl rollback {owner}`"
    );
    Ok(())
}

async fn empty_target(moving: &mut Move, state: &State) -> Result<()> {
    let views = moving.moving().views.clone();
    let target = &mut moving.target.connection;
    let tables: Vec<_> = relations::tables(target, &state.begun.tables).await?.into_iter().map(|table| table.name).collect();
    if tables.is_empty() {
        return Ok(());
    }
    let statement = if state.begun.made_tables {
        format!("begin; {}; commit", complete::dropping(target, &tables, &views).await?)
    } else {
        let listed: Vec<String> = tables.iter().map(crate::names::Qualified::sql).collect();
        format!("truncate {}", listed.join(", "))
    };
    execute(target, format!("set client_min_messages = warning; set lock_timeout = '10s'; {statement}"))
        .await
        .context("the target's tables cannot be taken away")
}

/// What is the source's: keys that were taken off, and the last word on where the tables live.
async fn end(source: &mut Side, owner: &str, state: &State, locking: Locking, target: &'static str) -> Result<Aborted> {
    // A key that cannot come back stops nothing: a stream that went on would pin WAL for it.
    let attached = crossings::put_back(source, owner, state, locking).await;
    let (attached, not_attached) = match attached {
        Ok(keys) => (keys.len(), None),
        Err(error) => (0, Some(format!("{error:#}"))),
    };
    if state.generation > 0 {
        // A service that starts later must not take an old switch for the last word.
        let here = Switch { generation: state.generation + 1, lives: Place::Source, way_back: None };
        execute(&mut source.connection, journal::switching(owner, &here)).await?;
    }
    append(&mut source.connection, state.number, owner, "abort", "record", &json!({ "not attached": not_attached })).await?;
    Ok(Aborted { owner: owner.to_owned(), target, attached, not_attached })
}
