//! The copy: the tables' definitions, their rows, and from then on every change.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sqlx::{FromRow, PgConnection};

use super::fence::{self, Locking};
use super::journal::{Begun, Step};
use super::progress::Progress;
use super::relations::{self, Table};
use super::side::Side;
use super::switches::{self, Switch};
use super::{Move, crash_point, definitions, marker, plan, rights, schema, slot, stream, unowned};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::Qualified;

/// How often it looks at the copy's progress.
const LOOK: Duration = Duration::from_millis(200);
/// The server retries a failed copy every few seconds. After this many failures the command gives up.
const FAILURES: i64 = 3;
/// How long no worker of the target may run.
const IDLE: Duration = Duration::from_secs(60);

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

/// Copies, or continues a copy.
///
/// # Errors
/// [`Refused`] with all errors of the plan, or with what stopped the copy. It may be repeated, or aborted.
pub async fn run(the_move: &mut Move, locking: Locking) -> Result<Copied> {
    let begun = Instant::now();
    check(the_move).await?;
    begin(the_move).await?;
    create_tables(the_move).await?;
    close_target(the_move, locking).await?;
    guard_and_publish(the_move, locking).await?;
    start_stream(the_move).await?;
    let Move { owner, target, state, .. } = the_move;
    let known = relations::tables(&mut the_move.source.connection, &owner.tables).await?;
    wait_for_rows(&mut target.connection, &state.stream(), &known).await?;
    crash_point("rows copied");
    unowned::copy(the_move).await?;
    finish(the_move).await?;
    let Move { owner, owner_name, target, .. } = the_move;
    let copied = relations::tables(&mut target.connection, &owner.tables).await?;
    let rows = copied.iter().map(|table| table.estimate).sum();
    Ok(Copied { owner: owner_name.clone(), tables: known.len(), rows, seconds: begun.elapsed().as_secs_f64() })
}

/// Refuses a copy that cannot be done.
async fn check(the_move: &mut Move) -> Result<()> {
    let Move { owner_name, state, .. } = the_move;
    require!(state.switch.lives == Side::Source, "{owner_name}: the tables live in the target already");
    state.check_not_ending(owner_name)?;
    // The rows are on the target, and the stream of the last switch continues from them.
    require!(
        state.switch.way_back.is_none(),
        "{owner_name}: the tables have been copied and switched: `splitctl status {owner_name}` shows what comes next"
    );
    let plan = plan::make(the_move).await?;
    let errors: Vec<String> = plan.errors().map(|finding| format!("{}: {}", finding.check, finding.text)).collect();
    require!(errors.is_empty(), "the plan has errors:\n  {}", errors.join("\n  "));
    Ok(())
}

/// Creates the journal and the switches, and writes the first row of the move.
async fn begin(the_move: &mut Move) -> Result<()> {
    let Move { manifest, owner, owner_name, source, target, journal, state, .. } = the_move;
    switches::install(&mut source.connection, &owner.role).await?;
    switches::install(&mut target.connection, &owner.role).await?;
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
            made: if made_tables { schema::list_lacking(source, target, owner).await? } else { Vec::new() },
            by_hand,
            shape: relations::shape(&mut source.connection, &owner.tables).await?,
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

async fn create_tables(the_move: &mut Move) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    if state.begun.made_tables && relations::tables(&mut target.connection, &owner.tables).await?.is_empty() {
        let definitions = schema::dump(source, target, owner).await?;
        schema::apply(target, &definitions.before_rows).await?;
    }
    crash_point("tables made");
    schema::grant_schemas(source, target, owner).await
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
async fn guard_and_publish(the_move: &mut Move, locking: Locking) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    for database in [&mut *source, &mut *target] {
        fence::install(&mut database.connection).await?;
        fence::run_for_each(&mut database.connection, &owner.tables, fence::GUARD, locking).await?;
        marker::create(&mut database.connection, owner_name).await?;
        stream::publish(&mut database.connection, &state.names, &owner.tables).await?;
        crash_point("guarded and published");
    }
    for database in [source, target] {
        definitions::guard(database, owner_name, &owner.tables).await?;
    }
    Ok(())
}

async fn start_stream(the_move: &mut Move) -> Result<()> {
    let Move { owner_name, source, target, state, .. } = the_move;
    let name = state.stream();
    if stream::read_health(&mut target.connection, &name).await?.exists {
        // A new slot would begin now, and skip what was committed since the old one was lost.
        let found = slot::find(&mut source.connection, &name).await?;
        require!(
            matches!(found, slot::Slot::Holds(_)),
            "{name}: the slot of the stream is gone, and with it the changes that it had not sent: `splitctl abort \
             {owner_name}`, and copy again"
        );
    } else {
        slot::create(&mut source.connection, &name).await?;
        crash_point("slot made");
    }
    stream::subscribe(source, target, &name, &state.names, stream::Begin::Copy).await?;
    crash_point("subscribed");
    Ok(())
}

/// Waits until the target has all rows, and reports the progress.
async fn wait_for_rows(target: &mut PgConnection, name: &str, tables: &[Table]) -> Result<()> {
    let progress = Progress::new("copying", tables.iter().map(|table| table.estimate).sum());
    let names: Vec<Qualified> = tables.iter().map(|table| table.name.clone()).collect();
    let mut worked = Instant::now();
    // Failures of an earlier run may be the reason for this one.
    let before = stream::read_health(target, name).await?.failures;
    loop {
        let health = stream::read_health(target, name).await?;
        if health.ready == health.tables && health.tables > 0 {
            return Ok(());
        }
        check_worker(&health, health.failures - before, &mut worked)?;
        for Done { rows, bytes } in relations::select(target, DONE, &names).await? {
            progress.report(rows.unsigned_abs(), Some(bytes.unsigned_abs()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Refuses to wait for a copy that fails again and again, or that no worker does.
fn check_worker(health: &stream::Health, failures: i64, worked: &mut Instant) -> Result<(), Refused> {
    if failures >= FAILURES {
        return Err(Refused(format!(
            "the target failed {failures} times to copy. The log of its server says why: a full disk, a missing right, the \
             source out of reach. Correct that and repeat the command, or run `splitctl abort`"
        )));
    }
    if health.works {
        *worked = Instant::now();
    }
    if worked.elapsed() > IDLE {
        return Err(Refused(format!(
            "the target ran no replication worker for {IDLE:?}. Check that its server reaches the source and has \
             max_logical_replication_workers left; its log says more. Repeat the command, or run `splitctl abort`"
        )));
    }
    Ok(())
}

/// Creates foreign keys and triggers, and records that the copy is done.
async fn finish(the_move: &mut Move) -> Result<()> {
    let Move { owner, source, target, journal, state, .. } = the_move;
    if state.begun.made_tables {
        if !schema::is_finished(source, target, owner).await? {
            let definitions = schema::dump(source, target, owner).await?;
            schema::apply(target, &definitions.after_rows).await?;
        }
        schema::refresh(target, owner).await?;
    }
    // All requests arrive at once after the cutover, and Postgres plans them from the statistics.
    for table in &owner.tables {
        execute(&mut target.connection, format!("analyze {}", table.sql())).await?;
    }
    if !state.copied {
        journal.record(Step::Copy, json!({})).await?;
    }
    the_move.read_state().await
}

#[derive(FromRow)]
struct Done {
    rows: i64,
    bytes: i64,
}

/// Counts the rows of a finished table by its statistics, and those of the others by the progress of their copies.
const DONE: &str = r"
    select
        coalesce(sum(greatest(s.n_tup_ins, p.tuples_processed, 0)), 0)::int8 as rows,
        coalesce(sum(pg_table_size(c.oid)), 0)::int8 as bytes
    from pg_class c
    left join pg_stat_all_tables s on s.relid = c.oid
    left join pg_stat_progress_copy p on p.relid = c.oid and p.datname = current_database()
    where c.oid = any ($1)
      and c.relkind = 'r'";
