//! What is done while writers wait, and before that, so that they wait for as little as can be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::PgConnection;

use super::super::fence;
use super::super::journal::State;
use super::super::side::Place;
use super::super::{Move, beside, crash_point, epochs, marker, relations, rights, sequences, stream};
use super::pause::{Clock, Pause};
use super::{Options, hook};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::{Qualified, quote_literal};

/// How long the stream may take for a marker before the fence is even tried.
const LAG: Duration = Duration::from_secs(30);
/// A stream that takes longer than this at rest is not fenced.
const CALM: Duration = Duration::from_millis(500);

/// Begins a transaction whose commit is written to disk, and with it everything that the stream brought before: the stream's
/// own commits are not waited for.
const FLUSHED: &str =
    "begin; set local synchronous_commit = local; select pg_logical_emit_message(true, 'splitctl', 'switch')";

/// Everything that can be done without holding anybody up, and then the fence.
pub(super) async fn attempt(moving: &mut Move, state: &State, options: &Options) -> Result<Pause> {
    let owner = moving.moving().clone();
    let name = moving.owner.clone();
    let names = moving.names(state.number);
    let back = names.stream(state.stream() + 1);
    let shape = relations::shape(&mut moving.source.connection, &owner.tables).await?;
    let its_shape = relations::shape(&mut moving.target.connection, &owner.tables).await?;
    for (place, now) in [(Place::Source, &shape), (Place::Target, &its_shape)] {
        let differences = relations::differences(&state.begun.shape, now);
        require!(
            differences.is_empty(),
            "the tables' definitions have changed on the {place} since the copy began:\n  {}",
            differences.join("\n  ")
        );
    }
    let (from, to) = moving.sides(state.lives);
    let health = stream::health(&mut to.connection, &names.stream(state.stream())).await?;
    require!(health.exists, "there is no stream from {} to {}: repeat the last command", from.place, to.place);
    require!(
        health.ready.0 == health.ready.1,
        "{} of {} tables have not been copied: `splitctl copy {name}`",
        health.ready.1 - health.ready.0,
        health.ready.1
    );

    // The other side is closed to all but the stream, whatever an earlier try left; what it is opened with is known before.
    rights::take(&mut to.connection, &owner).await?;
    let unclose = fence::for_each(&mut to.connection, &owner.tables, fence::UNCLOSE).await?;
    fence::run_each(&mut to.connection, &owner.tables, &unclose, options.locking).await?;
    let given = rights::read(&mut from.connection, &owner).await?;
    let raised = epochs::raised(from, to, owner.epochs.keys()).await?;
    let reading = sequences::reading(&sequences::of(&mut from.connection, &owner.tables).await?);
    let fence_off = fence::for_each(&mut from.connection, &owner.tables, fence::CLOSE).await?.join("; ");
    crash_point("other side ready");
    stream::make_slot(&mut to.connection, &back).await?;
    crash_point("slot of the way back made");
    calm(&mut from.connection, &mut to.connection, &name).await?;
    hook(options.before_switch.as_deref(), state.lives.other()).await?;

    let mut marking = beside(from).await?;
    let mut comparing = beside(from).await?;
    let fencing: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut from.connection).await?;
    let lock = lock_statement(&owner.tables, options);
    let asked = std::cell::Cell::new(Instant::now());
    fence::patiently(&mut from.connection, &owner.tables, options.locking, async |connection: &mut PgConnection| {
        asked.set(Instant::now());
        execute(connection, lock.clone()).await
    })
    .await?;
    let clock = Clock::new(asked.get());
    let limit = Duration::from_millis(options.max_pause);
    let fenced = async {
        let mut pause = Pause { lock: clock.lap(), ..Pause::default() };
        crash_point("locked");
        // The lock keeps writers off; what replaces it is made while the marker is on its way.
        let token = marker::set(&mut marking, &name).await?;
        let record = format!(
            "{fence_off}; {}; insert into splitctl.switches (owner, generation, side) values ({}, {}, '{}')",
            join(&given.revokes),
            quote_literal(&name),
            state.generation + 1,
            state.lives.other()
        );
        let (arrived, closed, now) = tokio::join!(
            marker::arrives(&mut to.connection, &name, token, limit),
            execute(&mut from.connection, record),
            relations::shape(&mut comparing, &owner.tables),
        );
        closed?;
        require!(arrived?, "the stream took longer than {limit:?} (--max-pause) while writers waited: nothing was changed");
        require!(now? == state.begun.shape, "the tables' definitions changed at the last moment: nothing was changed");
        pause.stream = clock.lap();
        crash_point("marker arrived");
        let sets = sequences::setting(&mut comparing, reading.as_deref()).await?;
        execute(
            &mut to.connection,
            format!("{FLUSHED}; {raised}; {}; commit", sets.unwrap_or_else(|| "select 1".to_owned())),
        )
        .await?;
        pause.sequences = clock.lap();
        // That commit has flushed everything the stream brought, none of which is to come back.
        sqlx::query("select pg_replication_slot_advance($1, pg_current_wal_flush_lsn())")
            .bind(&back)
            .execute(&mut to.connection)
            .await?;
        pause.way_back = clock.lap();
        crash_point("way back advanced");
        execute(&mut to.connection, format!("begin; {}; commit", join(&given.grants))).await?;
        pause.opening = clock.lap();
        crash_point("other side open");
        execute(&mut from.connection, "commit")
            .await
            .context("it is not known whether the switch was made: run the command again, which finds out")?;
        pause.commit = clock.lap();
        pause.total = clock.total();
        Ok(pause)
    };
    let done = match tokio::time::timeout(limit.max(Duration::from_millis(1)) * 2, fenced).await {
        Ok(done) => done,
        Err(_elapsed) => {
            Err(Refused(format!("it took longer than twice {limit:?} (--max-pause) while writers waited")).into())
        }
    };
    if done.is_err() {
        // Sessions in an unknown state are of no more use: their servers take back what was open on them.
        from.connection = beside(from).await?;
        to.connection = beside(to).await?;
        until_gone(&mut from.connection, fencing).await?;
    }
    done
}

/// Waits until a session has ended: before that, its commit may still come through.
async fn until_gone(connection: &mut PgConnection, process: i32) -> Result<()> {
    let begun = Instant::now();
    let gone = "select not exists (select from pg_stat_activity where pid = $1)";
    while !sqlx::query_scalar::<_, bool>(gone).bind(process).fetch_one(&mut *connection).await? {
        if begun.elapsed() > LAG {
            bail!(
                "the session that held the tables (process {process}) does not end: run the command again, which finds out how far it came"
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn join(statements: &[String]) -> String {
    if statements.is_empty() { "select 1".to_owned() } else { statements.join("; ") }
}

/// Begins a transaction that holds the tables. Its server ends it by itself if we fall silent.
fn lock_statement(tables: &[Qualified], options: &Options) -> String {
    let listed: Vec<String> = tables.iter().map(Qualified::sql).collect();
    format!(
        "begin; set local idle_in_transaction_session_timeout = {}; lock table {} in share row exclusive mode",
        options.max_pause.saturating_mul(2).max(1),
        listed.join(", ")
    )
}

/// Nothing is fenced behind a stream that lags.
async fn calm(from: &mut PgConnection, to: &mut PgConnection, name: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let sent = Instant::now();
        let token = marker::set(from, name).await?;
        require!(
            marker::arrives(to, name, token, LAG).await?,
            "the stream is more than {LAG:?} behind: wait, and see `splitctl status {name}`"
        );
        if sent.elapsed() < CALM {
            return Ok(());
        }
        require!(
            begun.elapsed() < LAG * 2,
            "the stream lags by {:?} again and again: try at a quieter time",
            sent.elapsed()
        );
    }
}
