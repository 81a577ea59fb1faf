//! CPU time from `/proc`: proc(5).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use procfs::process::{Process, Stat, all_processes};
use procfs::{CurrentSI, KernelStats};

use super::Times;

/// The times of a server, of the service that it calls, and of the Postgres whose postmaster is `postgres`.
pub fn times(server: Option<u32>, neighbour: Option<u32>, postgres: u32) -> Result<Times> {
    let of = |id: Option<u32>| id.map_or(Ok(Duration::ZERO), |id| Ok::<_, anyhow::Error>(own(&stat(id)?)));
    let (postmaster, this) = (stat(postgres)?, stat(std::process::id())?);
    let backends = stats().filter(|stat| stat.ppid == postmaster.pid);
    Ok(Times {
        server: of(server)?,
        neighbour: of(neighbour)?,
        postgres: with_ended_children(&postmaster) + backends.map(|stat| own(&stat)).sum::<Duration>(),
        // pgbench is a child of this process, and has ended.
        ours: with_ended_children(&this),
        machine: of_machine()?,
    })
}

/// The most memory that a process has had, in MiB.
pub fn peak_mib(id: u32) -> Result<u64> {
    let status = Process::new(i32::try_from(id)?).and_then(|process| process.status());
    let status = status.with_context(|| format!("process {id} has ended"))?;
    Ok(status.vmhwm.context("the kernel does not say how much memory a process has had")? / 1024)
}

/// The newest process of this name on a leash of this process: its shell's child.
pub fn find_leashed(name: &str) -> Result<u32> {
    let all: Vec<Stat> = stats().collect();
    let shells: Vec<i32> =
        all.iter().filter(|stat| stat.ppid.unsigned_abs() == std::process::id()).map(|stat| stat.pid).collect();
    let found = all.iter().filter(|stat| stat.comm == name && shells.contains(&stat.ppid));
    match found.max_by_key(|stat| stat.starttime) {
        Some(stat) => Ok(u32::try_from(stat.pid)?),
        None => bail!("this program has no process {name}"),
    }
}

fn stat(id: u32) -> Result<Stat> {
    Process::new(i32::try_from(id)?).and_then(|process| process.stat()).with_context(|| format!("process {id} has ended"))
}

fn stats() -> impl Iterator<Item = Stat> {
    all_processes().into_iter().flatten().filter_map(|process| process.ok()?.stat().ok())
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / procfs::ticks_per_second())
}

/// Time of the process itself, all its threads.
fn own(stat: &Stat) -> Duration {
    ticks(stat.utime + stat.stime)
}

fn with_ended_children(stat: &Stat) -> Duration {
    own(stat) + ticks(u64::try_from(stat.cutime + stat.cstime).unwrap_or_default())
}

/// Busy time of all CPUs. The kernel counts a guest's time in the first two as well.
fn of_machine() -> Result<Duration> {
    let cpus = KernelStats::current()?.total;
    let optional = [cpus.irq, cpus.softirq, cpus.steal].into_iter().flatten().sum::<u64>();
    Ok(ticks(cpus.user + cpus.nice + cpus.system + optional))
}
