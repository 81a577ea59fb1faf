//! Takes a move back that has not been completed: nothing of it is left but the journal.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::fence::Locking;
use super::journal::append;
use super::side::Place;
use super::{Move, complete, crash_point, crossings, relations, stream};
use crate::database::execute;
use crate::exit::require;
use crate::names::Qualified;

/// What was taken back.
#[derive(Debug, Serialize)]
pub struct Aborted {
    /// Whose move.
    pub owner: String,
    /// What became of the target's tables.
    pub target: &'static str,
    /// Foreign keys that were put back.
    pub attached: usize,
}

/// Ends the streams, takes triggers and publications away, and empties the target again.
///
/// # Errors
/// [`crate::exit::Refused`] while the tables live in the target: that takes a rollback first.
pub async fn run(moving: &mut Move, locking: Locking) -> Result<Aborted> {
    let state = moving.state()?.clone();
    let name = moving.owner.clone();
    let names = moving.names(state.number);
    require!(
        state.lives == Place::Source,
        "the tables live in the target: `splitctl rollback {name}` first, or `splitctl complete {name}`"
    );
    require!(
        !matches!(state.pending.as_deref(), Some("rollback")),
        "the rollback has not come to its end: repeat `splitctl rollback {name}`"
    );
    let attached = if state.detached.is_empty() { 0 } else { crossings::attach(moving, locking).await?.len() };
    append(&mut moving.source.connection, state.number, &name, "abort", "intent", &json!({})).await?;
    crash_point("abort intended");
    if state.generation > 0 {
        // A service that starts later must not take an old switch for the last word.
        let row = sqlx::query("insert into splitctl.switches (owner, generation, side) values ($1, $2, 'source')");
        row.bind(&name).bind(state.generation + 1).execute(&mut moving.source.connection).await?;
    }
    stream::end_all(&mut moving.source, &mut moving.target, &names).await?;
    crash_point("streams ended");
    complete::clean(moving, locking).await?;
    let listed = moving.moving().tables.clone();
    let tables = relations::tables(&mut moving.target.connection, &listed).await?;
    let listed: Vec<String> = tables.iter().map(|table| table.name.sql()).collect();
    if !listed.is_empty() {
        let statement = if state.begun.made_tables {
            let views: Vec<String> = moving.moving().views.iter().map(Qualified::sql).collect();
            let views = if views.is_empty() { String::new() } else { format!("drop view if exists {};", views.join(", ")) };
            format!("begin; {views} drop table {}; commit", listed.join(", "))
        } else {
            format!("truncate {}", listed.join(", "))
        };
        execute(&mut moving.target.connection, statement).await?;
    }
    crash_point("target emptied");
    append(&mut moving.source.connection, state.number, &name, "abort", "record", &json!({})).await?;
    let target = if state.begun.made_tables { "dropped" } else { "emptied" };
    Ok(Aborted { owner: name, target, attached })
}
