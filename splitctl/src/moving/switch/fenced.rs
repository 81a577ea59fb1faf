//! What is done while writers wait, and before that, so that they wait for as little as can be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::PgConnection;

use super::super::fence;
use super::super::journal::{self, State, Switch};
use super::super::rights::Rights;
use super::super::side::{Place, Side};
use super::super::{Move, beside, crash_point, epochs, marker, relations, rights, sequences, slot, stream};
use super::pause::{Clock, Pause};
use super::{Options, hook};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::manifest::Owner;
use crate::names::Qualified;

/// How long the stream may take for a marker before the fence is even tried.
const LAG: Duration = Duration::from_secs(30);
/// From one switch to the next.
const REST: Duration = Duration::from_secs(3);
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
    let slot = slot::state(&mut from.connection, &names.stream(state.stream())).await?;
    require!(
        matches!(slot, slot::Slot::Holds(_)),
        "the slot of the stream from {} to {} is gone, so changes may be missing: `splitctl abort {name}`, and copy again",
        from.place,
        to.place
    );
    require!(
        health.ready.0 == health.ready.1,
        "{} of {} tables have not been copied: `splitctl copy {name}`",
        health.ready.1 - health.ready.0,
        health.ready.1
    );

    // The other side is closed to all but the stream, whatever an earlier try left; what it is opened with is known before.
    rights::take(&mut to.connection, &owner).await?;
    let unclose = fence::for_each(&mut to.connection, &owner.tables, fence::UNCLOSE).await?;
    let given = rights::read(&mut from.connection, &owner).await?.understood_by(to.version);
    let raised = epochs::raised(from, to, &owner.epochs).await?;
    // Whatever would be refused in the end is refused now.
    execute(&mut to.connection, format!("begin; {raised}; {}; rollback", join(&given.grants))).await.with_context(|| {
        format!("the {} cannot be opened to those who use the tables: see `splitctl plan {name}`", to.place)
    })?;
    let reading = sequences::reading(&sequences::of(&mut from.connection, &owner.tables).await?);
    let fence_off = fence::for_each(&mut from.connection, &owner.tables, fence::CLOSE).await?.join("; ");
    crash_point("other side ready");
    slot::made(&mut to.connection, &back).await?;
    crash_point("slot of the way back made");
    rest(&mut from.connection, &name).await?;
    calm(&mut from.connection, &mut to.connection, &name).await?;
    hook(options.before_switch.as_deref(), state.lives.other()).await?;
    let done = while_others_wait(
        from,
        to,
        state,
        options,
        &Ready { owner: &owner, name: &name, back: &back, given, raised, reading, fence_off, unclose },
    )
    .await;
    if done.is_err() && options.before_switch.is_some() {
        // What it paused goes on where it was.
        let _ = hook(options.after_switch.as_deref(), state.lives).await;
    }
    done
}

/// What is known before writers have to wait.
struct Ready<'a> {
    owner: &'a Owner,
    name: &'a str,
    /// The slot of the way back.
    back: &'a str,
    /// Rights to take here and give there.
    given: Rights,
    /// Statements that raise the epochs.
    raised: String,
    /// The statement that reads the sequences.
    reading: Option<String>,
    /// Statements that make the triggers here.
    fence_off: String,
    /// Statements that drop them there.
    unclose: Vec<String>,
}

/// The fence: from the lock to the commit.
async fn while_others_wait(
    from: &mut Side,
    to: &mut Side,
    state: &State,
    options: &Options,
    Ready { owner, name, back, given, raised, reading, fence_off, unclose }: &Ready<'_>,
) -> Result<Pause> {
    fence::run_each(&mut to.connection, &owner.tables, unclose, options.locking).await?;
    let mut marking = beside(from).await?;
    let mut comparing = beside(from).await?;
    let fencing: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut from.connection).await?;
    let lock = lock_statement(&owner.tables, options);
    let asked = std::cell::Cell::new(Instant::now());
    fence::patiently(&mut from.connection, &owner.tables, options.locking, async |connection: &mut PgConnection| {
        // Under the lock, little is left to be read.
        advance(&mut to.connection, back).await?;
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
        let token = marker::set(&mut marking, name).await?;
        let closing = format!(
            "set local statement_timeout = {0}; set local lock_timeout = {0}; {fence_off}; {1}",
            options.max_pause.max(1),
            join(&given.revokes),
        );
        let (arrived, closed, now) = tokio::join!(
            marker::arrives(&mut to.connection, name, token, limit),
            execute(&mut from.connection, closing),
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
        let way_back = advance(&mut to.connection, back).await?;
        pause.way_back = clock.lap();
        crash_point("way back advanced");
        execute(&mut to.connection, format!("begin; {}; commit", join(&given.grants))).await?;
        pause.opening = clock.lap();
        crash_point("other side open");
        let switch = Switch { generation: state.generation + 1, lives: state.lives.other(), way_back: Some(way_back) };
        execute(&mut from.connection, format!("{}; commit", journal::switching(name, &switch)))
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

/// Advances a slot to what is on disk, and returns that place.
async fn advance(connection: &mut PgConnection, slot: &str) -> Result<String, sqlx::Error> {
    let advance = "select end_lsn::text from pg_replication_slot_advance($1, pg_current_wal_flush_lsn())";
    sqlx::query_scalar(advance).bind(slot).fetch_one(connection).await
}

/// Ends a session, and waits until it has ended: before that, its commit may still come through.
async fn until_gone(connection: &mut PgConnection, process: i32) -> Result<()> {
    let begun = Instant::now();
    // A server does not notice by itself that whoever waits for a lock has gone.
    sqlx::query("select pg_terminate_backend($1)").bind(process).execute(&mut *connection).await?;
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
        "begin; set local idle_in_transaction_session_timeout = {}; set local statement_timeout = {}; lock table {} in share row exclusive mode",
        options.max_pause.saturating_mul(2).max(1),
        // A time-out for locks is one for each table: this is one for all of them.
        options.locking.lock_timeout,
        listed.join(", ")
    )
}

/// A service that was idle may not have heard of the switch before, and believes for a second in what it knew; were the side
/// that it left opened again within that, it would write there too early.
async fn rest(from: &mut PgConnection, name: &str) -> Result<()> {
    let since = "select extract(epoch from clock_timestamp() - max(at))::float8 from splitctl.switches where owner = $1";
    let since: Option<f64> = sqlx::query_scalar(since).bind(name).fetch_one(from).await?;
    if let Some(left) = since.map(|since| REST.as_secs_f64() - since).filter(|left| *left > 0.0) {
        tokio::time::sleep(Duration::from_secs_f64(left.min(REST.as_secs_f64()))).await;
    }
    Ok(())
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
