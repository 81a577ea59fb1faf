//! The faults, one function each.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::sleep;

use super::leaving::leaving;
use super::load::Load;
use super::overload::overload;
use super::proxy::Mode;
use super::scene::{Clock, Scene};
use super::tally::Tally;
use crate::services::SERVICES;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    None,
    Killed,
    Frozen,
    Full,
    Cut,
    ReadOnly,
    LockedRow,
    LockedRows,
    NeighbourDead,
    NeighbourSilent,
    NeighbourGarbage,
    Deaf,
    Leaving,
    Schema,
    Rotation,
    ClockAhead,
    ClockBehind,
    Overload,
}

impl Fault {
    pub fn title(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Killed => "Postgres killed, and started again",
            Self::Frozen => "Postgres frozen",
            Self::Full => "Postgres' disk full",
            Self::Cut => "all connections cut, again and again",
            Self::ReadOnly => "Postgres read-only",
            Self::LockedRow => "one row locked, 30 clients want it",
            Self::LockedRows => "ten rows locked, 30 clients want them",
            Self::NeighbourDead => "users cannot be reached by orders",
            Self::NeighbourSilent => "users does not answer orders",
            Self::NeighbourGarbage => "orders gets HTML instead of users",
            Self::Deaf => "ten clients that read nothing",
            Self::Leaving => "clients that send a request and leave",
            Self::Schema => "compatible changes of the schema",
            Self::Rotation => "new passwords, and all connections cut",
            Self::ClockAhead => "services' clock a day ahead",
            Self::ClockBehind => "services' clock a day behind",
            Self::Overload => "five times the load that a database 20 ms late carries",
        }
    }

    /// What may be refused meanwhile.
    pub fn may_refuse(self) -> Refusals {
        match self {
            Self::None
            | Self::LockedRow
            | Self::Deaf
            | Self::Leaving
            | Self::Schema
            | Self::ClockAhead
            | Self::ClockBehind => Refusals::None,
            // Until the rows are known to be locked, the writes that wait for them take all places for writes.
            Self::LockedRows => Refusals::Writes,
            _ => Refusals::All,
        }
    }
}

/// Requests that a fault may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    None,
    Writes,
    All,
}

/// What there is to say of a fault beside the figures of the load.
#[derive(Debug, Default)]
pub struct Note {
    pub text: Option<String>,
    pub harm: Vec<String>,
}

impl Note {
    pub fn text(text: String) -> Self {
        Self { text: Some(text), harm: Vec::new() }
    }
}

/// A fault is over.
pub enum Injected {
    Done(Note),
    /// It cannot be tried here, for this reason.
    Skipped(String),
}

/// Lets the fault happen for `seconds` while the load goes on, and ends it.
pub async fn inject(fault: Fault, scene: &mut Scene, load: &Load, seconds: Duration) -> Result<Injected> {
    match fault {
        Fault::None => sleep(seconds).await,
        Fault::Killed => kill(scene, seconds).await?,
        Fault::Frozen => freeze(scene, seconds).await?,
        Fault::Full => return fill_disk(scene, seconds).await,
        Fault::Cut => cut(scene, seconds).await?,
        Fault::ReadOnly => {
            set_read_only(scene, "on").await?;
            sleep(seconds).await;
            set_read_only(scene, "off").await?;
        }
        Fault::LockedRow => lock_rows(scene, load, 1, seconds).await?,
        Fault::LockedRows => lock_rows(scene, load, 10, seconds).await?,
        Fault::NeighbourDead => turn_neighbour(scene, Mode::Dead, seconds).await,
        Fault::NeighbourSilent => turn_neighbour(scene, Mode::Silent, seconds).await,
        Fault::NeighbourGarbage => turn_neighbour(scene, Mode::Garbage, seconds).await,
        Fault::Deaf => {
            let deaf = deaf_clients(scene)?;
            sleep(seconds).await;
            drop(deaf);
        }
        Fault::Schema => change_schema(scene, seconds).await?,
        Fault::Rotation => {
            for service in SERVICES {
                scene.rotate(service).await?;
            }
            cut(scene, Duration::ZERO).await?;
            sleep(seconds).await;
        }
        Fault::ClockAhead => return shift_clock(scene, load, "+1d", seconds).await,
        Fault::ClockBehind => return shift_clock(scene, load, "-1d", seconds).await,
        Fault::Leaving | Fault::Overload => {
            // Beside the usual load, the figures would depend on the machine.
            load.pause().await;
            load.take();
            let (note, tally) = match fault {
                Fault::Leaving => leaving(scene, seconds).await?,
                _ => overload(scene, seconds).await?,
            };
            load.count(tally);
            load.resume();
            return Ok(Injected::Done(note));
        }
    }
    Ok(Injected::Done(Note::default()))
}

async fn kill(scene: &mut Scene, seconds: Duration) -> Result<()> {
    scene.cluster.stop(true)?;
    sleep(seconds).await;
    scene.cluster.start_again()
}

async fn freeze(scene: &Scene, seconds: Duration) -> Result<()> {
    let frozen = scene.cluster.freeze()?;
    // Longer than an answer may take.
    sleep(seconds.max(Duration::from_secs(7))).await;
    drop(frozen);
    Ok(())
}

async fn fill_disk(scene: &mut Scene, seconds: Duration) -> Result<Injected> {
    let Some(disk) = &scene.disk else { return Ok(Injected::Skipped("only root may mount a small disk".to_owned())) };
    let filler = disk.fill()?;
    sleep(seconds).await;
    std::fs::remove_file(filler)?;
    // Without space for its log, Postgres stops altogether.
    if scene.owner().await.is_err() {
        sleep(Duration::from_secs(1)).await;
        if scene.owner().await.is_err() {
            scene.cluster.stop(true)?;
            scene.cluster.start_again()?;
        }
    }
    Ok(Injected::Done(Note::default()))
}

/// Ends all sessions of the services, every 100 ms.
async fn cut(scene: &Scene, seconds: Duration) -> Result<()> {
    const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity where usename in ('users_svc', 'orders_svc')";
    let mut owner = scene.owner().await?;
    let begun = Instant::now();
    loop {
        owner.execute(CUT).await?;
        if begun.elapsed() >= seconds {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn set_read_only(scene: &Scene, value: &str) -> Result<()> {
    let mut owner = scene.owner().await?;
    owner.execute(AssertSqlSafe(format!("alter system set default_transaction_read_only = {value}"))).await?;
    owner.execute("select pg_reload_conf()").await?;
    Ok(())
}

/// Locks users, whom other clients than the load want to change.
async fn lock_rows(scene: &Scene, load: &Load, count: usize, seconds: Duration) -> Result<()> {
    let client = scene.users();
    let mut paths = Vec::new();
    for number in 0..count {
        let email = format!("locked.{number}.{}@example.org", uuid::Uuid::new_v4().simple());
        let user = client.post("/users").json(&json!({ "email": email, "name": "Locked" })).answered(201).await?;
        paths.push(format!("/users/{}", user["id"].as_str().context("an id")?));
    }
    let mut owner = scene.owner().await?;
    let ids: Vec<_> = paths.iter().filter_map(|path| path.strip_prefix("/users/")).collect();
    let lock = format!("begin; select from users where id in ('{}') for update", ids.join("', '"));
    owner.execute(AssertSqlSafe(lock)).await?;
    let end = Instant::now() + seconds;
    let clients: Vec<_> = (0..30)
        .map(|number| {
            let (client, path) = (client.clone(), paths[number % count].clone());
            tokio::spawn(async move {
                let mut tally = Tally::default();
                while Instant::now() < end {
                    let sent = Instant::now();
                    let answer = client.patch(&path).json(&json!({ "name": format!("Locked {number}") })).send().await;
                    // A refusal is right here.
                    let is_done = answer.as_ref().is_ok_and(|answer| [200, 503].contains(&answer.status));
                    tally.note(&answer, is_done, false, sent.elapsed());
                    sleep(Duration::from_millis(20)).await;
                }
                tally
            })
        })
        .collect();
    for client in clients {
        load.count(client.await?);
    }
    owner.execute("rollback").await?;
    Ok(())
}

async fn turn_neighbour(scene: &Scene, mode: Mode, seconds: Duration) {
    scene.neighbour.turn(mode);
    sleep(seconds).await;
    scene.neighbour.turn(Mode::Pass);
}

/// Clients that ask for many pages of the feed and read none.
fn deaf_clients(scene: &Scene) -> Result<Vec<TcpStream>> {
    let ask = || {
        let mut client = TcpStream::connect(scene.addresses[1])?;
        client.set_nonblocking(true)?;
        // What does not fit into the buffers is not sent.
        let _ = client.write(&b"GET /events?limit=1000 HTTP/1.1\r\nhost: orders\r\n\r\n".repeat(20));
        Ok(client)
    };
    (0..10).map(|_| ask()).collect()
}

/// Changes that an application must not notice.
const CHANGES: [&str; 14] = [
    "alter table users alter column email type varchar(254)",
    "alter table users alter column email type text",
    "alter table users add column nickname text",
    "alter table users drop column nickname",
    "alter table user_events add column note text",
    "alter table user_events drop column note",
    "alter table orders add column note text not null default 'none'",
    "alter table orders drop column note",
    "alter table order_items alter column sku type varchar(64)",
    "alter table order_items alter column sku type text",
    "create index orders_placed on orders (placed_at)",
    "drop index orders_placed",
    "create or replace function order_event_epoch() returns bigint
         language sql stable parallel safe as 'select 1::bigint'",
    "create or replace view customers as select id, name, status, version from users",
];

async fn change_schema(scene: &Scene, seconds: Duration) -> Result<()> {
    let mut owner = scene.owner().await?;
    for change in CHANGES {
        owner.execute(change).await.with_context(|| change.to_owned())?;
        sleep(seconds / CHANGES.len() as u32).await;
    }
    Ok(())
}

async fn shift_clock(scene: &mut Scene, load: &Load, offset: &'static str, seconds: Duration) -> Result<Injected> {
    let Some(clock) = Clock::find(offset) else { return Ok(Injected::Skipped("libfaketime is not there".to_owned())) };
    restart(scene, load, Some(&clock)).await?;
    sleep(seconds).await;
    let tally = load.take();
    restart(scene, load, None).await?;
    load.count(tally);
    Ok(Injected::Done(Note::default()))
}

/// Starts the services anew by this clock. The load pauses meanwhile, and what it is answered before all connections are
/// open does not count.
async fn restart(scene: &mut Scene, load: &Load, clock: Option<&Clock>) -> Result<()> {
    load.pause().await;
    scene.stop()?;
    scene.start(clock).await?;
    load.resume();
    load.until_all_succeed().await?;
    load.take();
    Ok(())
}
