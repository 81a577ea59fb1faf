//! The copy: the tables' definitions, their rows, and from then on every change.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use super::fence::{self, Locking};
use super::journal::{self, Begun, Switch, append};
use super::progress::Progress;
use super::relations::{self, Table};
use super::side::Place;
use super::stream::{self, Names};
use super::{Move, crash_point, marker, plan, rights, schema, slot};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::Qualified;

/// How often is looked how far the copy is.
const LOOK: Duration = Duration::from_millis(200);
/// Failures of the copy after which it is not waited for any longer: each is tried again by the server after some seconds.
const FAILURES: i64 = 3;
/// How long a copy may run without a worker of the target at work.
const IDLE: Duration = Duration::from_secs(60);

/// What was copied.
#[derive(Debug, Serialize)]
pub struct Copied {
    /// Whose tables.
    pub owner: String,
    /// Tables.
    pub tables: usize,
    /// Rows on the target, as its statistics say.
    pub rows: i64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Copies, or goes on with a copy that was begun.
///
/// # Errors
/// [`Refused`] with all errors of the plan; what stopped it. It may be repeated, or taken back by `abort`.
pub async fn run(moving: &mut Move, locking: Locking) -> Result<Copied> {
    let begun = Instant::now();
    if let Some(state) = &moving.state {
        require!(state.lives == Place::Source, "the tables live in the target already");
        state.check_goes_on(&moving.owner)?;
        // The rows are there, and the stream of a switch goes on from them.
        require!(
            state.way_back.is_none(),
            "the tables have been copied and switched: `splitctl status {}` tells what comes next",
            moving.owner
        );
    }
    let plan = plan::make(moving).await?;
    let errors: Vec<String> = plan.errors().map(|finding| format!("{}: {}", finding.check, finding.text)).collect();
    require!(errors.is_empty(), "the plan has errors:\n  {}", errors.join("\n  "));
    prepare(moving).await?;
    let (owner, name) = (moving.moving().clone(), moving.owner.clone());
    let state = moving.state()?.clone();
    let names = moving.names(state.number);

    // The target's tables, closed to all but us.
    if state.begun.made_tables && relations::tables(&mut moving.target.connection, &owner.tables).await?.is_empty() {
        let definitions = schema::dump(&mut moving.source, &mut moving.target, &owner).await?;
        schema::apply(&moving.target, &definitions.needed).await?;
        crash_point("types and functions made");
        schema::apply(&moving.target, &definitions.tables).await?;
        crash_point("tables made");
    }
    rights::take(&mut moving.target.connection, &owner).await?;
    identify_rows(moving, &state.begun.keyless, locking).await?;
    crash_point("target closed");

    // Truncates would not come along, on either side.
    for side in [&mut moving.source, &mut moving.target] {
        fence::install(&mut side.connection).await?;
        let guards = fence::for_each(&mut side.connection, &owner.tables, fence::GUARD).await?;
        fence::run_each(&mut side.connection, &owner.tables, &guards, locking).await?;
        marker::install(&mut side.connection, &name).await?;
        stream::publish(&mut side.connection, &names, &owner.tables).await?;
        crash_point("guarded and published");
    }
    guard_definitions(moving, &owner.tables).await?;
    let slot = names.stream(state.stream());
    if stream::is_subscribed(&mut moving.target.connection, &slot).await? {
        // A new slot would begin now, and what was committed since the old one was lost would be passed over.
        let known = slot::state(&mut moving.source.connection, &slot).await?;
        require!(
            matches!(known, slot::Slot::Holds(_)),
            "the stream's slot {slot} is gone, and with it changes that had not been sent: `splitctl abort {name}`, and copy again"
        );
    } else {
        slot::made(&mut moving.source.connection, &slot).await?;
        crash_point("slot made");
    }
    stream::subscribe(&moving.source, &mut moving.target, &names, state.stream(), stream::Begin::Copy).await?;
    crash_point("subscribed");
    let known = relations::tables(&mut moving.source.connection, &owner.tables).await?;
    wait_for_rows(&mut moving.target.connection, &slot, &known).await?;
    crash_point("rows copied");

    if state.begun.made_tables && schema::count_rules(&mut moving.target.connection, &owner.tables).await? == 0 {
        let definitions = schema::dump(&mut moving.source, &mut moving.target, &owner).await?;
        schema::apply(&moving.target, &definitions.rules).await?;
    }
    // Plans are made from statistics, and the first requests come all at once.
    for table in &owner.tables {
        execute(&mut moving.target.connection, format!("analyze {}", table.sql())).await?;
    }
    if !state.copied {
        append(&mut moving.source.connection, state.number, &name, "copy", "record", &json!({})).await?;
    }
    moving.read_state().await?;
    let rows =
        relations::tables(&mut moving.target.connection, &owner.tables).await?.iter().map(|table| table.estimate).sum();
    Ok(Copied { owner: name, tables: known.len(), rows, seconds: begun.elapsed().as_secs_f64() })
}

/// The journal, and its first row.
async fn prepare(moving: &mut Move) -> Result<()> {
    let role = moving.moving().role.clone();
    for side in [&mut moving.source, &mut moving.target] {
        journal::install_switches(&mut side.connection, &role).await?;
    }
    journal::install(&mut moving.source.connection).await?;
    crash_point("journal made");
    if moving.state.is_none() {
        begin_here(moving).await?;
        let tables = moving.moving().tables.clone();
        let made_tables = relations::tables(&mut moving.target.connection, &tables).await?.is_empty();
        let source = &mut moving.source.connection;
        let shape = relations::shape(source, &tables).await?;
        let keyless = relations::tables(source, &tables).await?;
        let keyless = keyless.into_iter().filter(|table| table.key.is_empty()).map(|table| table.name).collect();
        let begun = Begun { tables, target: moving.target.identity.clone(), made_tables, shape, keyless };
        let number = journal::next_number(source).await?;
        append(source, number, &moving.owner, "copy", "intent", &json!(begun)).await?;
    }
    moving.read_state().await?;
    crash_point("copy intended");
    Ok(())
}

/// A move begins where the tables are, whatever switches of earlier moves say.
async fn begin_here(moving: &mut Move) -> Result<()> {
    let (source, target) = (&mut moving.source.connection, &mut moving.target.connection);
    let known = [journal::newest_switch(source, &moving.owner).await?, journal::newest_switch(target, &moving.owner).await?];
    let newest = known.into_iter().flatten().max_by_key(|switch| switch.generation);
    if let Some(Switch { generation, lives: Place::Target, .. }) = newest {
        let here = Switch { generation: generation + 1, lives: Place::Source, way_back: None };
        execute(source, journal::switching(&moving.owner, &here)).await?;
    }
    Ok(())
}

/// Where no key tells which row an update means, the whole row has to.
async fn identify_rows(moving: &mut Move, keyless: &[Qualified], locking: Locking) -> Result<()> {
    for side in [&mut moving.source, &mut moving.target] {
        let full = fence::for_each(&mut side.connection, keyless, "alter table {} replica identity full").await?;
        fence::run_each(&mut side.connection, keyless, &full, locking).await?;
    }
    Ok(())
}

/// Refuses changes of the definitions on both sides while the tables move, where we may; they are compared before each step in
/// any case.
async fn guard_definitions(moving: &mut Move, tables: &[Qualified]) -> Result<()> {
    let name = event_trigger(&moving.owner);
    for side in [&mut moving.source, &mut moving.target] {
        if !side.superuser {
            continue;
        }
        let oids = format!("select relid::bigint from ({}) m (relid)", relations::oids(tables));
        let oids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(oids)).fetch_all(&mut side.connection).await?;
        let oids = oids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        execute(&mut side.connection, DEFINITIONS_GUARD.replace("{name}", &name).replace("{oids}", &oids)).await?;
    }
    Ok(())
}

/// An event trigger for the tables and partitions with these oids.
const DEFINITIONS_GUARD: &str = "
    begin;
    create or replace function splitctl.{name}() returns event_trigger language plpgsql set search_path = pg_catalog as $$
    declare
        command record;
    begin
        if coalesce(current_setting('splitctl.at_work', true), '') = 'yes' then
            return;
        end if;
        for command in select * from pg_event_trigger_ddl_commands() loop
            if command.command_tag in ('ALTER TABLE', 'CREATE INDEX', 'CREATE TABLE', 'CREATE RULE')
               and (command.objid in ({oids})
                    or exists (select from pg_index i where i.indexrelid = command.objid and i.indrelid in ({oids}) and i.indisunique)
                    or exists (select from pg_inherits i where i.inhrelid = command.objid and i.inhparent in ({oids}))) then
                raise exception '% is being moved to another database: its definition cannot change meanwhile', command.object_identity
                    using errcode = 'object_not_in_prerequisite_state', hint = 'wait for splitctl complete, or splitctl abort';
            end if;
        end loop;
    end $$;
    drop event trigger if exists {name};
    create event trigger {name} on ddl_command_end execute function splitctl.{name}();
    commit";

/// The name of the event trigger of an owner's move, and of its function.
pub fn event_trigger(owner: &str) -> String {
    format!("splitctl_definitions_{owner}")
}

/// Waits until all rows that were there are on the target, and tells how far it is.
async fn wait_for_rows(target: &mut PgConnection, name: &str, tables: &[Table]) -> Result<()> {
    let expected: i64 = tables.iter().map(|table| table.estimate).sum();
    let progress = Progress::new("copying", expected.max(0).unsigned_abs());
    let mut worked = Instant::now();
    // Those of before may be why this is a second try.
    let known = stream::health(target, name).await?.failures;
    loop {
        let health = stream::health(target, name).await?;
        if health.ready.0 == health.ready.1 && health.ready.1 > 0 {
            return Ok(());
        }
        if health.failures >= known + FAILURES {
            return Err(Refused(format!(
                "the target failed {} times to copy; its server's log says why (a full disk, a missing right, the source out of its reach). Mend that and repeat the command, or `splitctl abort`",
                health.failures - known
            ))
            .into());
        }
        if health.works {
            worked = Instant::now();
        } else if worked.elapsed() > IDLE {
            return Err(Refused(format!(
                "no worker of the target has been at work for {IDLE:?}: does its server reach the source, and has it max_logical_replication_workers left? Its log says more. Repeat the command, or `splitctl abort`"
            ))
            .into());
        }
        let (rows, bytes) = copied(target, tables).await?;
        progress.at(rows, Some(bytes));
        tokio::time::sleep(LOOK).await;
    }
}

/// Rows and bytes on the target: of tables that are done by their statistics, of the others as their copies tell.
async fn copied(target: &mut PgConnection, tables: &[Table]) -> Result<(u64, u64)> {
    let names: Vec<Qualified> = tables.iter().map(|table| table.name.clone()).collect();
    let statement = format!(
        "select coalesce(sum(greatest(s.n_tup_ins, p.tuples_processed, 0)), 0)::bigint, coalesce(sum(pg_table_size(m.relid)), 0)::bigint
         from ({}) m (relid)
         join pg_class c on c.oid = m.relid and c.relkind = 'r'
         left join pg_stat_all_tables s on s.relid = m.relid
         left join pg_stat_progress_copy p on p.relid = m.relid and p.datname = current_database()",
        relations::oids(&names)
    );
    let (rows, bytes): (i64, i64) = sqlx::query_as(AssertSqlSafe(statement)).fetch_one(target).await?;
    Ok((rows.unsigned_abs(), bytes.unsigned_abs()))
}

impl Move {
    /// The names of the move's objects.
    pub(super) fn names(&self, number: i32) -> Names {
        Names::new(&self.owner, number, self.source.identity.database)
    }
}
