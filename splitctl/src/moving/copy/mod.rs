//! The copy: the tables' definitions, their rows, their keys and indexes, and from then on every change.

mod counts;
mod rows;
mod snapshot;
mod waiting;

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::budget::Budget;
use super::fence::{self, Locking};
use super::inventory::Inventory;
use super::journal::{Begun, Step};
use super::relations;
use super::schema::{Definitions, Filled};
use super::side::{Database, Side};
use super::switches::{self, Switch};
use super::{
    Move, applier, budget, crash_point, definitions, hanging, marker, plan, rights, schema, shape, slot, stream,
    subscription, unowned,
};
use crate::database::{AWAIT_DISK, AWAIT_NO_DISK, execute};
use crate::exit::require;
use crate::manifest::Owner;
use crate::names::Qualified;
use crate::sizes;

/// The result of a copy.
#[derive(Debug, Serialize)]
pub struct Copied {
    /// The owner.
    pub owner: String,
    /// The number of tables.
    pub tables: usize,
    /// The number of rows on the target, from its statistics.
    pub rows: i64,
    /// The duration in seconds.
    pub seconds: f64,
}

/// Flags of `copy`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Options {
    /// How many tables, or parts of large ones, to copy at once, and in how many sessions to create the keys
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub jobs: u8,
    /// The most bytes of rows to copy a second, such as 20MB
    #[arg(long, value_parser = sizes::parse)]
    pub max_rate: Option<u64>,
    #[command(flatten)]
    pub budget: Budget,
    #[command(flatten)]
    pub locking: Locking,
}

/// Copies, or continues a copy.
///
/// # Errors
/// [`crate::exit::Refused`] with all errors of the plan, or with what stopped the copy. It may be repeated, or aborted.
pub async fn run(the_move: &mut Move, options: Options) -> Result<Copied> {
    let begun = Instant::now();
    // What the plan has judged is what is copied.
    let inventory = the_move.read_inventory().await?;
    check(the_move, &inventory).await?;
    begin(the_move, &inventory).await?;
    let work = async |the_move: &mut Move| copy(the_move, &inventory, options).await;
    let (tables, rows) = budget::within(the_move, options.budget.max_wal, work).await?;
    let owner = the_move.owner_name.clone();
    Ok(Copied { owner, tables, rows, seconds: begun.elapsed().as_secs_f64() })
}

/// Copies what is not there. Returns the number of tables, and of the target's rows.
async fn copy(the_move: &mut Move, inventory: &Inventory, options: Options) -> Result<(usize, i64)> {
    let mut definitions = create_tables(the_move, inventory, options.jobs).await?;
    close_target(the_move, options.locking).await?;
    publish(the_move, options.locking).await?;
    let left = copy_rows(the_move, options).await?;
    create_keys(the_move, inventory, &mut definitions, options.jobs).await?;
    start_stream(the_move, left).await?;
    let Move { owner, target, state, .. } = the_move;
    let known = relations::tables(&mut the_move.source.connection, &owner.tables).await?;
    waiting::wait_for_rows((&mut the_move.source, target), &state.stream(), &state.names, &known).await?;
    crash_point("rows copied");
    unowned::copy(the_move).await?;
    finish(the_move, inventory, definitions, options.jobs).await?;
    let Move { owner, target, .. } = the_move;
    let copied = relations::tables(&mut target.connection, &owner.tables).await?;
    Ok((known.len(), copied.iter().map(|table| table.estimate).sum()))
}

/// What was copied: it is counted, and in the end forgotten.
pub use rows::{count_finished, forget};

/// Refuses a copy that cannot be done.
async fn check(the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let Move { owner_name, state, .. } = the_move;
    require!(state.switch.lives == Side::Source, "{owner_name}: the tables live in the target already");
    state.check_not_ending(owner_name)?;
    // The rows are on the target, and the stream of the last switch continues from them.
    require!(
        state.switch.way_back.is_none(),
        "{owner_name}: the tables have been copied and switched: `splitctl status {owner_name}` shows what comes next"
    );
    let plan = plan::make_of(the_move, inventory).await?;
    let errors: Vec<String> = plan.errors().map(|finding| format!("{}: {}", finding.check, finding.text)).collect();
    require!(errors.is_empty(), "the plan has errors:\n  {}", errors.join("\n  "));
    let Move { owner_name, target, state, .. } = the_move;
    if state.copied {
        let lacking = inventory.lacking(&mut target.connection).await?;
        let late: Vec<String> =
            lacking.into_iter().filter(|object| inventory.is_brought(object)).map(|object| object.shown()).collect();
        require!(
            late.is_empty(),
            "{owner_name}: `bring` has named these since the copy, which brings nothing more: {}. Create them on the \
             target, or run `splitctl abort {owner_name}` and copy again",
            late.join(", ")
        );
    }
    Ok(())
}

/// Creates the journal and the switches, and writes the first row of the move.
async fn begin(the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let Move { manifest, owner, owner_name, source, target, journal, state, .. } = the_move;
    switches::install(&mut source.connection, &owner.role).await?;
    switches::install(&mut target.connection, Side::Target.role_of(owner)).await?;
    journal.install().await?;
    crash_point("journal made");
    if !state.is_open() {
        // A move begins in the source, whatever the switches of an earlier move say.
        if let Some(newest) = journal.find_newest_switch(Some(target)).await?
            && newest.lives == Side::Target
        {
            let here = Switch { generation: newest.generation + 1, lives: Side::Source, way_back: None };
            execute(&mut source.connection, here.statement(owner_name)).await?;
        }
        let known = relations::tables(&mut source.connection, &owner.tables).await?;
        let keyless: Vec<Qualified> =
            known.into_iter().filter(|table| table.key.is_empty()).map(|table| table.name).collect();
        let made_tables = relations::tables(&mut target.connection, &owner.tables).await?.is_empty();
        let by_hand = if made_tables { Vec::new() } else { rights::read(&mut target.connection, owner).await?.grants };
        let begun = Begun {
            tables: owner.tables.clone(),
            target: target.identity.clone(),
            made_tables,
            made: if made_tables { schema::list_lacking(target, inventory).await? } else { Vec::new() },
            by_hand,
            undo: schema::undoing(source, target, owner, inventory).await?,
            shape: shape::read(&mut source.connection, owner).await?,
            unowned: unowned::choose(source, target, &manifest.unowned).await?,
            full: relations::full_identities(&mut source.connection, &keyless).await?,
            keyless,
        };
        journal.begin(&begun).await?;
    }
    the_move.read_state().await?;
    crash_point("copy intended");
    Ok(())
}

/// Creates the tables. Returns the definitions if it has read them.
async fn create_tables(the_move: &mut Move, inventory: &Inventory, jobs: u8) -> Result<Option<Definitions>> {
    let Move { owner, source, target, state, .. } = the_move;
    let mut definitions = None;
    if state.begun.made_tables && relations::tables(&mut target.connection, &owner.tables).await?.is_empty() {
        let read = schema::dump(source, target, owner, inventory, jobs).await?;
        schema::apply(target, &read.before_rows).await?;
        definitions = Some(read);
    }
    crash_point("tables made");
    schema::grant_schemas(source, target, owner, inventory).await?;
    Ok(definitions)
}

/// The definitions, which a run reads once.
async fn read_once<'a>(
    known: &'a mut Option<Definitions>,
    source: &mut Database,
    target: &mut Database,
    owner: &Owner,
    inventory: &Inventory,
    jobs: u8,
) -> Result<&'a Definitions> {
    let read = match known.take() {
        Some(read) => read,
        None => schema::dump(source, target, owner, inventory, jobs).await?,
    };
    Ok(known.insert(read))
}

/// Copies the rows, unless the stream does: it copies the tables that it returns. Without a superuser, the server copies
/// all, because splitctl has no right on tables that are closed to every role.
async fn copy_rows(the_move: &mut Move, options: Options) -> Result<Option<Vec<Qualified>>> {
    let Move { target, state, .. } = &mut *the_move;
    let is_there = subscription::read_health(&mut target.connection, &state.stream()).await?.exists;
    if is_there || !target.superuser {
        return Ok(None);
    }
    Ok(Some(rows::copy(the_move, options).await?))
}

/// Creates the keys and indexes in several sessions, and guards the definitions that the target has by then.
async fn create_keys(
    the_move: &mut Move,
    inventory: &Inventory,
    definitions: &mut Option<Definitions>,
    jobs: u8,
) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    // A run that has created the tables itself need not ask.
    if state.begun.made_tables && (definitions.is_some() || !schema::has_keys(source, target, inventory).await?) {
        let keys = &read_once(definitions, source, target, owner, inventory, jobs).await?.keys;
        schema::apply_all(target, keys).await?;
    }
    crash_point("keys made");
    definitions::guard(target, owner_name, &owner.tables).await
}

/// Closes the target to every role but splitctl's.
async fn close_target(the_move: &mut Move, locking: Locking) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    rights::revoke(&mut target.connection, owner).await?;
    // Without a key, the whole row identifies the row that an update changes.
    for database in [source, target] {
        let full = "alter table {} replica identity full";
        fence::run_for_each(&mut database.connection, &state.begun.keyless, full, locking).await?;
    }
    crash_point("target closed");
    Ok(())
}

/// Truncate and changes of the definitions do not replicate in either direction, so both sides refuse them.
async fn publish(the_move: &mut Move, locking: Locking) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    for database in [&mut *source, &mut *target] {
        fence::install(&mut database.connection).await?;
        fence::run_for_each(&mut database.connection, &owner.tables, fence::GUARD, locking).await?;
        marker::create(&mut database.connection, owner_name).await?;
        stream::publish(&mut database.connection, &state.names, &owner.tables).await?;
        crash_point("published");
    }
    definitions::guard(source, owner_name, &owner.tables).await
}

/// Starts the stream. `left` are the tables that splitctl has not copied itself; `None` if it copies none.
async fn start_stream(the_move: &mut Move, left: Option<Vec<Qualified>>) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    let name = state.stream();
    if subscription::read_health(&mut target.connection, &name).await?.exists {
        // A new slot would begin now, and skip what was committed since the old one was lost.
        let found = slot::find(&mut source.connection, &name).await?;
        require!(
            matches!(found, slot::Slot::Holds(_)),
            "{name}: the slot of the stream is gone, and with it the changes that it had not sent: `splitctl abort \
             {owner_name}`, and copy again"
        );
    } else if let Some(left) = left {
        if !left.is_empty() {
            stream::publish_without(&mut source.connection, &state.names, &left).await?;
        }
        crash_point("finished tables published");
        stream::subscribe(source, target, &name, &state.names, owner, stream::Begin::Copied).await?;
    } else {
        slot::create(source, &name, owner).await?;
        crash_point("slot made");
        stream::subscribe(source, target, &name, &state.names, owner, stream::Begin::Copy).await?;
    }
    crash_point("subscribed");
    stream::extend(source, target, &name, &state.names, &owner.tables).await
}

/// Creates foreign keys and triggers, and records that the copy is done.
async fn finish(the_move: &mut Move, inventory: &Inventory, mut definitions: Option<Definitions>, jobs: u8) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = &mut *the_move;
    if state.begun.made_tables {
        // A run that has created the tables or keys itself need not ask.
        if definitions.is_some() || !schema::is_finished(source, target, inventory).await? {
            let after = &read_once(&mut definitions, source, target, owner, inventory, jobs).await?.after_rows;
            let passing = applier::passing_row_security(source, target, &state.names, owner).await?;
            schema::apply(target, &format!("{after}; {passing}")).await?;
        }
        schema::validate(source, target, owner).await?;
        // It keeps what the definitions are by now.
        definitions::guard(target, owner_name, &owner.tables).await?;
        schema::refresh(source, target, owner, Filled::Stay).await?;
    }
    // All requests arrive at once after the cutover, and Postgres plans them from the statistics.
    execute(&mut target.connection, AWAIT_NO_DISK).await?;
    execute(&mut target.connection, format!("analyze {}", relations::list(&owner.tables))).await?;
    execute(&mut target.connection, AWAIT_DISK).await?;
    rows::forget(&mut target.connection, owner_name).await?;
    if !state.copied {
        let known = hanging::know(owner, source, target).await?;
        the_move.journal.record(Step::Copy, json!({ "hanging": known })).await?;
    }
    the_move.read_state().await
}
