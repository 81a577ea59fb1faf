//! The report.

use serde::Serialize;

use crate::contestants::Contestant;
use crate::figures::Figures;
use crate::jobs::Job;

/// All results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The conditions.
    pub set_up: SetUp,
    pub results: Vec<Entry>,
}

/// The conditions of the measurement.
#[derive(Debug, Serialize)]
pub struct SetUp {
    /// Postgres, the server and the load share these CPUs.
    pub cores: usize,
    pub postgres: String,
    /// Of Postgres.
    pub settings: Vec<String>,
    pub users: u64,
    pub orders: u64,
    /// Kept-alive HTTP connections, each with one request at a time.
    pub http_connections: usize,
    /// For each contestant.
    pub database_connections: u32,
    pub seconds: u32,
    pub rounds: u32,
}

/// The figures of a contestant in a job.
#[derive(Debug, Serialize)]
pub struct Entry {
    job: Job,
    contestant: Contestant,
    #[serde(flatten)]
    figures: Figures,
    /// Requests per second, as a part of pgbench's.
    rate_to_pgbench: Option<f64>,
    /// CPU per request, as a multiple of the peer's.
    cpu_to_peer: Option<f64>,
}

impl Report {
    /// Compares each figure with pgbench's and the peer's.
    pub fn new(set_up: SetUp, figures: &[(Job, Contestant, Figures)]) -> Self {
        let of = |job, contestant| {
            let found = figures.iter().find(|(j, c, _)| (*j, *c) == (job, contestant));
            found.map(|(_, _, figures)| figures)
        };
        let results = figures.iter().map(|&(job, contestant, figures)| {
            let (pgbench, peer) = (of(job, Contestant::Pgbench), of(job, Contestant::Peer));
            let peer_cpu = peer.and_then(|peer| peer.server_cpu_us);
            Entry {
                job,
                contestant,
                figures,
                rate_to_pgbench: pgbench.map(|pgbench| figures.requests_per_second / pgbench.requests_per_second),
                cpu_to_peer: figures.server_cpu_us.zip(peer_cpu).map(|(ours, peers)| ours / peers),
            }
        });
        Self { set_up, results: results.collect() }
    }

    /// The number of wrong answers.
    pub fn failures(&self) -> u64 {
        self.results.iter().map(|entry| entry.figures.failures).sum()
    }

    /// A table with its legend.
    pub fn text(&self) -> String {
        let header =
            ["job", "contestant", "requests/s", "p50 ms", "p99 ms", "server µs", "postgres µs", "to pgbench", "to peer"];
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(self.results.iter().map(Entry::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 9] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                // Words are aligned left, numbers right.
                if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        let disturbance = self.disturbance().map(|text| format!("{text}\n")).unwrap_or_default();
        format!("{text}\n{}\n{disturbance}", self.set_up.text())
    }

    /// A warning, if other processes took more than 5 % of the CPUs in any job.
    fn disturbance(&self) -> Option<String> {
        let most = self.results.iter().map(|entry| entry.figures.cpu_of_others).fold(0.0, f64::max);
        (most > 0.05).then(|| {
            format!(
                "warning: other processes took up to {:.0} % of the CPUs: repeat the run on a quiet machine",
                most * 100.0
            )
        })
    }
}

impl Entry {
    fn cells(&self) -> [String; 9] {
        let optional = |value: Option<f64>, decimals| value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"));
        let Figures { requests_per_second, p50_ms, p99_ms, server_cpu_us, postgres_cpu_us, .. } = self.figures;
        [
            self.job.name().to_owned(),
            self.contestant.name().to_owned(),
            format!("{requests_per_second:.0}"),
            format!("{p50_ms:.2}"),
            format!("{p99_ms:.2}"),
            optional(server_cpu_us, 1),
            format!("{postgres_cpu_us:.1}"),
            optional(self.rate_to_pgbench, 2),
            optional(self.cpu_to_peer, 2),
        ]
    }
}

impl SetUp {
    fn text(&self) -> String {
        let Self { cores, postgres, settings, users, orders, http_connections, database_connections, seconds, rounds } =
            self;
        format!(
            "{cores} cores for all; Postgres {postgres} with {}; {users} users, {orders} orders; {http_connections} HTTP \
             connections, {database_connections} to Postgres for each server and for pgbench (-M prepared, the services' \
             SQL); medians of {rounds} rounds of {seconds} s; µs: CPU per request of the server's and of all Postgres \
             processes; to pgbench: requests/s; to peer (axum and tokio-postgres, nothing else; sqlx is the same with the \
             services' driver): server µs",
            settings.join(", "),
        )
    }
}
