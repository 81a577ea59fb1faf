//! The switch from the side where the tables live to the other one: cutover and rollback are the same, the other way round.
//!
//! What happens while writers wait, in this order: the tables are locked; the marker goes through the stream; sequences and
//! epochs are raised on the other side; the way back is set to begin here; the other side is opened; and then **one** commit on
//! the side that is left takes the rights there and writes down where the tables live. That commit is the switch. Before it,
//! nothing has changed for anybody, and a crash has the server let go of everything; after it, writers that waited are refused
//! and have written nothing, and so are readers. Whoever is refused reads `splitctl.switches` in the database that refused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::process::Command;

use super::fence::{self, Locking};
use super::journal::{State, append};
use super::relations;
use super::rights::{self, Rights};
use super::side::{Place, Side};
use super::stream;
use super::{Move, beside, crash_point, crossings, marker, sequences};
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

/// How a switch is done.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Locks.
    #[command(flatten)]
    pub locking: Locking,
    /// How long writers may be held up once the tables are locked, in milliseconds; then it is taken back
    #[arg(long, default_value_t = 1000)]
    pub max_pause: u64,
    /// A command to run before writers are held up: pause a pooler, for one. If it fails, nothing is done
    #[arg(long)]
    pub before_switch: Option<String>,
    /// A command to run once the tables live on the other side: turn a pooler to it, for one
    #[arg(long)]
    pub after_switch: Option<String>,
}

/// What it took.
#[derive(Debug, Clone, Serialize)]
pub struct Switched {
    /// Whose tables.
    pub owner: String,
    /// Where they live now.
    pub lives: Place,
    /// The number of the switch.
    pub generation: i64,
    /// How long writers were held up, in milliseconds: from the first request for the lock that was got to the commit. `None`
    /// if an earlier run of the command had switched, and this one only did what was left.
    pub pause: Option<Pause>,
}

/// The pause, broken down, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pause {
    /// All of it.
    pub total: f64,
    /// Waiting for the lock.
    pub lock: f64,
    /// The marker's way through the stream; fencing and comparing definitions meanwhile.
    pub stream: f64,
    /// Sequences and epochs.
    pub sequences: f64,
    /// The start of the way back.
    pub way_back: f64,
    /// Opening the other side.
    pub opening: f64,
    /// The commit.
    pub commit: f64,
}

/// Switches to `to`, or does what an earlier run left of that.
///
/// # Errors
/// [`Refused`] with what stands against it. Nothing has changed then for those who use the tables.
pub async fn run(moving: &mut Move, to: Place, options: &Options) -> Result<Switched> {
    let state = moving.state()?.clone();
    let step = step(to);
    if state.lives == to {
        require!(state.generation > 0, "the tables have not left the {to}: there is nothing to roll back");
        // The commit was done; is the rest?
        finish(moving, &state, options).await?;
        return Ok(Switched { owner: moving.owner.clone(), lives: to, generation: state.generation, pause: None });
    }
    require!(state.copied, "the copy has not come to its end: `splitctl copy {}`", moving.owner);
    if to == Place::Target {
        require!(
            state.is_verified(),
            "the rows have not been compared since the last step: `splitctl verify {}`",
            moving.owner
        );
        let standing = crossings::standing(moving).await?;
        require!(standing.is_empty(), "crossings still stand:\n  {}", standing.join("\n  "));
    }
    // What a run that was killed has left of the switch before.
    settle_streams(moving, &state).await?;
    let source = &mut moving.source.connection;
    append(source, state.number, &moving.owner, step, "intent", &json!({ "generation": state.generation + 1 })).await?;
    crash_point("switch intended");
    let pause = match attempt(moving, &state, options).await {
        Ok(pause) => pause,
        Err(error) => {
            // Whether the commit came through is for the databases to say.
            moving.read_state().await.context("run the command again, which finds out how far it came")?;
            if moving.state()?.generation == state.generation {
                take_back(moving, &state).await;
            }
            return Err(error);
        }
    };
    crash_point("switched");
    moving.read_state().await?;
    let state = moving.state()?.clone();
    finish(moving, &state, options).await?;
    Ok(Switched { owner: moving.owner.clone(), lives: to, generation: state.generation, pause: Some(pause) })
}

/// The command that switches to a side.
fn step(to: Place) -> &'static str {
    match to {
        Place::Target => "cutover",
        Place::Source => "rollback",
    }
}

/// Everything that can be done without holding anybody up, and then the fence.
async fn attempt(moving: &mut Move, state: &State, options: &Options) -> Result<Pause> {
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
    close(&mut to.connection, &owner).await?;
    let unclose = fence::for_each(&mut to.connection, &owner.tables, fence::UNCLOSE).await?;
    fence::run_each(&mut to.connection, &owner.tables, &unclose, options.locking).await?;
    let given = rights::read(&mut from.connection, &owner).await?;
    let epochs = epochs(from, to, &owner.epochs.keys().cloned().collect::<Vec<_>>()).await?;
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
            format!("{FLUSHED}; {epochs}; {}; commit", sets.unwrap_or_else(|| "select 1".to_owned())),
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

/// Takes all rights on a side from those who use the tables.
async fn close(connection: &mut PgConnection, owner: &crate::manifest::Owner) -> Result<Rights> {
    let rights = rights::read(connection, owner).await?;
    if !rights.revokes.is_empty() {
        execute(connection, rights.revokes.join("; ")).await?;
    }
    Ok(rights)
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

/// Statements that raise the epochs of event logs above all that either side has.
async fn epochs(from: &mut Side, to: &mut Side, functions: &[Qualified]) -> Result<String> {
    let mut statements = Vec::new();
    for function in functions {
        let ask = format!("select {}()::bigint", function.sql());
        let here: i64 = sqlx::query_scalar(AssertSqlSafe(ask.clone())).fetch_one(&mut from.connection).await?;
        let there: i64 = sqlx::query_scalar(AssertSqlSafe(ask)).fetch_one(&mut to.connection).await?;
        statements.push(format!(
            "create or replace function {}() returns bigint language sql stable parallel safe as 'select {}::bigint'",
            function.sql(),
            here.max(there) + 1
        ));
    }
    Ok(join(&statements))
}

/// Runs an operator's command, with the side to turn to in `SPLITCTL_SIDE`.
async fn hook(command: Option<&str>, to: Place) -> Result<()> {
    let Some(command) = command else { return Ok(()) };
    let status = Command::new("/bin/sh").args(["-c", command]).env("SPLITCTL_SIDE", to.name()).status().await;
    let status = status.with_context(|| format!("`{command}` cannot be run"))?;
    require!(status.success(), "`{command}` failed ({status})");
    Ok(())
}

/// After a try that failed: the other side is closed again, the way back is given up, and the fence that was off is on again.
async fn take_back(moving: &mut Move, state: &State) {
    let owner = moving.moving().clone();
    let names = moving.names(state.number);
    let step = step(state.lives.other());
    let (number, name) = (state.number, moving.owner.clone());
    let (from, to) = moving.sides(state.lives);
    let _ = close(&mut to.connection, &owner).await;
    if state.generation > 0
        && let Ok(close) = fence::for_each(&mut to.connection, &owner.tables, fence::CLOSE).await
    {
        let _ = fence::run_each(&mut to.connection, &owner.tables, &close, Locking { lock_timeout: 200, lock_attempts: 5 })
            .await;
    }
    let _ = stream::end(to, from, &names, state.stream() + 1).await;
    let given_up = json!({ "generation": state.generation + 1, "given up": step });
    let _ = append(&mut moving.source.connection, number, &name, "give-up", "record", &given_up).await;
}

/// What comes after the commit.
async fn finish(moving: &mut Move, state: &State, options: &Options) -> Result<()> {
    let step = step(state.lives);
    let pending = state.pending.as_deref() == Some(step);
    if pending {
        hook(options.after_switch.as_deref(), state.lives).await?;
    }
    settle_streams(moving, state).await?;
    if pending {
        let detail = json!({ "generation": state.generation });
        append(&mut moving.source.connection, state.number, &moving.owner, step, "record", &detail).await?;
    }
    if state.lives == Place::Source && !state.detached.is_empty() {
        // They hold from here on as before the move. The fence saw the marker arrive, so no row of the other side is missing.
        crossings::attach(moving, options.locking).await?;
    }
    moving.read_state().await
}

/// After a switch the stream of before ends, and the one back begins. Never both at once: what goes one way would come back by
/// the other.
async fn settle_streams(moving: &mut Move, state: &State) -> Result<()> {
    if state.generation == 0 {
        return Ok(());
    }
    let names = moving.names(state.number);
    let name = moving.owner.clone();
    let (lives, other) = moving.sides(state.lives);
    stream::end(other, lives, &names, state.generation).await?;
    crash_point("stream of before ended");
    let slot = names.stream(state.stream());
    if stream::retained(&mut lives.connection, &slot).await?.is_none() {
        bail!(
            "the slot {slot} is gone, and with it the way back: the tables are safe in the {}; `splitctl complete {name}`, or copy anew",
            lives.place
        );
    }
    stream::subscribe(&mut other.connection, &names, state.stream(), &lives.url_from_other, false).await?;
    crash_point("way back begun");
    Ok(())
}

/// Laps of the pause.
struct Clock {
    begun: Instant,
    lap: std::cell::Cell<Instant>,
}

impl Clock {
    fn new(begun: Instant) -> Self {
        Self { begun, lap: std::cell::Cell::new(begun) }
    }

    /// Milliseconds since the last one.
    fn lap(&self) -> f64 {
        let now = Instant::now();
        let lap = self.lap.replace(now);
        (now - lap).as_secs_f64() * 1000.0
    }

    fn total(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1000.0
    }
}
