//! The time that processes have had on a CPU, from `/proc`: proc(5).

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// `USER_HZ` is 100 on every Linux that programs see.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(10 * count)
}

/// What `/proc/<id>/stat` tells of a process.
struct Stat {
    name: String,
    parent: u32,
    /// Of the process itself, all its threads.
    own: Duration,
    /// Of its children that have ended.
    ended_children: Duration,
}

impl Stat {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name stands in brackets, and may hold anything.
        let (start, rest) = text.rsplit_once(") ")?;
        let (_, name) = start.split_once('(')?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // Numbered as in proc(5), where `state` is the third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            parent: u32::try_from(number(4)?).ok()?,
            own: ticks(number(14)? + number(15)?),
            ended_children: ticks(number(16)? + number(17)?),
        })
    }
}

fn all() -> impl Iterator<Item = (u32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((id, Stat::read(id)?))
    })
}

/// Where the CPUs' time goes from one moment to another.
pub struct Meter {
    server: Option<u32>,
    neighbour: Option<u32>,
    postgres: u32,
    started: Instant,
    before: Times,
}

/// What a [`Meter`] has seen.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Time of the server.
    pub server: Option<Duration>,
    /// Time of the service that the server asks.
    pub neighbour: Option<Duration>,
    /// Time of all of Postgres' processes.
    pub postgres: Duration,
    /// The part of the CPUs that went to processes that have nothing to do with it, from 0 to 1.
    pub others: f64,
}

#[derive(Clone, Copy)]
struct Times {
    server: Duration,
    neighbour: Duration,
    postgres: Duration,
    ours: Duration,
    machine: Duration,
}

impl Meter {
    /// Begins to measure a server and one that it asks, if there are any, and the Postgres whose postmaster is `postgres`.
    pub fn start(server: Option<u32>, neighbour: Option<u32>, postgres: u32) -> Result<Self> {
        let before = Times::now(server, neighbour, postgres)?;
        Ok(Self { server, neighbour, postgres, started: Instant::now(), before })
    }

    /// What was used since then.
    pub fn stop(self) -> Result<Used> {
        let now = Times::now(self.server, self.neighbour, self.postgres)?;
        let used = |time: fn(&Times) -> Duration| time(&now).saturating_sub(time(&self.before));
        let (server, postgres) = (used(|times| times.server), used(|times| times.postgres));
        let neighbour = used(|times| times.neighbour);
        let others = used(|times| times.machine).saturating_sub(server + neighbour + postgres + used(|times| times.ours));
        let available = self.started.elapsed() * u32::try_from(std::thread::available_parallelism()?.get())?;
        Ok(Used {
            server: self.server.map(|_| server),
            neighbour: self.neighbour.map(|_| neighbour),
            postgres,
            others: others.div_duration_f64(available),
        })
    }
}

impl Times {
    fn now(server: Option<u32>, neighbour: Option<u32>, postgres: u32) -> Result<Self> {
        let of = |id| Stat::read(id).with_context(|| format!("process {id} has ended"));
        let postmaster = of(postgres)?;
        let children: Duration = all().filter(|(_, stat)| stat.parent == postgres).map(|(_, stat)| stat.own).sum();
        // pgbench is a child of ours that has ended whenever somebody looks.
        let ours = of(std::process::id())?;
        Ok(Self {
            server: server.map(of).transpose()?.map_or(Duration::ZERO, |stat| stat.own),
            neighbour: neighbour.map(of).transpose()?.map_or(Duration::ZERO, |stat| stat.own),
            postgres: postmaster.own + postmaster.ended_children + children,
            ours: ours.own + ours.ended_children,
            machine: of_machine()?,
        })
    }
}

/// Time that all CPUs have been at work.
fn of_machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields: Option<Vec<u64>> =
        text.lines().next().map(|line| line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect());
    // user, nice, system, idle, iowait, irq, softirq, steal: a guest's time is in the first two already.
    match fields.as_deref() {
        Some([user, nice, system, _idle, _iowait, irq, softirq, steal, ..]) => {
            Ok(ticks(user + nice + system + irq + softirq + steal))
        }
        _ => bail!("/proc/stat is not as expected"),
    }
}

/// The process of this name that is held by a leash of ours: the child of a child.
pub fn find_leashed(name: &str) -> Result<u32> {
    let ours = std::process::id();
    let is_leash = |id| Stat::read(id).is_some_and(|shell| shell.parent == ours);
    let mut found = all().filter(|(_, stat)| stat.name == name && is_leash(stat.parent));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => Ok(id),
        _ => bail!("there is not exactly one process {name} of ours"),
    }
}
