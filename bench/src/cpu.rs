//! The CPU time of processes, and their memory.

#[cfg(target_os = "linux")]
mod system;
#[cfg(not(target_os = "linux"))]
mod system {
    //! Other systems build this program with the workspace, but cannot run it.

    pub fn times(_: Option<u32>, _: Option<u32>, _: u32) -> anyhow::Result<super::Times> {
        anyhow::bail!("the benchmark runs on Linux alone: it measures CPU time by /proc")
    }

    pub fn find_leashed(_: &str) -> anyhow::Result<u32> {
        anyhow::bail!("the benchmark runs on Linux alone: it measures CPU time by /proc")
    }

    pub fn peak_mib(_: u32) -> anyhow::Result<u64> {
        anyhow::bail!("the benchmark runs on Linux alone: it measures memory by /proc")
    }
}

use std::time::{Duration, Instant};

use anyhow::Result;

use system::times;
pub use system::{find_leashed, peak_mib};

/// CPU time from one moment to another.
pub struct Meter {
    server: Option<u32>,
    neighbour: Option<u32>,
    postgres: u32,
    started: Instant,
    before: Times,
}

/// What a [`Meter`] has measured.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub server: Option<Duration>,
    /// Of the service that the server calls.
    pub neighbour: Option<Duration>,
    /// Of all of Postgres' processes.
    pub postgres: Duration,
    /// The part of the CPUs that unrelated processes used, from 0 to 1.
    pub others: f64,
}

/// CPU times since the processes began.
struct Times {
    server: Duration,
    neighbour: Duration,
    postgres: Duration,
    /// Of this process and pgbench.
    ours: Duration,
    /// Of all CPUs.
    machine: Duration,
}

impl Meter {
    /// Starts to measure a server, the service that it calls, and the Postgres whose postmaster is `postgres`.
    pub fn start(server: Option<u32>, neighbour: Option<u32>, postgres: u32) -> Result<Self> {
        let before = times(server, neighbour, postgres)?;
        Ok(Self { server, neighbour, postgres, started: Instant::now(), before })
    }

    /// Returns the time since the start.
    pub fn stop(self) -> Result<Used> {
        let now = times(self.server, self.neighbour, self.postgres)?;
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
