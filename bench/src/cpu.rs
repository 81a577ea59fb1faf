//! The time that processes have had on a CPU, from `/proc`: proc(5).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `USER_HZ` is 100 on every Linux that programs see.
const TICK: Duration = Duration::from_millis(10);

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
        let number = |field: usize| fields.get(field - 3)?.parse::<u32>().ok();
        Some(Self {
            name: name.to_owned(),
            parent: number(4)?,
            own: TICK * (number(14)? + number(15)?),
            ended_children: TICK * (number(16)? + number(17)?),
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

/// Time of one process.
pub fn of_process(id: u32) -> Result<Duration> {
    Stat::read(id).map(|stat| stat.own).with_context(|| format!("process {id} has ended"))
}

/// Time of a Postgres server: the postmaster and all its children, those that have ended included.
pub fn of_postgres(postmaster: u32) -> Result<Duration> {
    let server = Stat::read(postmaster).context("Postgres has ended")?;
    let children: Duration = all().filter(|(_, stat)| stat.parent == postmaster).map(|(_, stat)| stat.own).sum();
    Ok(server.own + server.ended_children + children)
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
