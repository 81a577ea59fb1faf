//! pgbench: the services' SQL with nothing before it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE, connect};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor};
use tokio::process::Command;

use super::{DATABASE_CONNECTIONS, WARM_UP};
use crate::cpu::Meter;
use crate::figures::Figures;
use crate::jobs::{Job, PAGE_ROWS};

/// The part of the transactions whose latencies it writes down: enough for a percentile, and no work to speak of.
const SAMPLING_RATE: &str = "0.1";

/// How to run pgbench.
pub struct Pgbench {
    program: PathBuf,
    users_url: String,
    orders_url: String,
    password: String,
}

/// What it says at the end.
struct Said {
    transactions: usize,
    rate: f64,
    failures: u64,
}

impl Pgbench {
    /// The one that belongs to the server, or else the one in PATH.
    pub fn new(cluster: &Cluster, database: &str) -> Result<Self> {
        let beside = cluster.program("pgbench");
        Ok(Self {
            program: if beside.is_file() { beside } else { "pgbench".into() },
            users_url: cluster.url_as(USERS_ROLE, database),
            orders_url: cluster.url_as(ORDERS_ROLE, database),
            password: cluster.password().to_owned(),
        })
    }

    fn url(&self, job: Job) -> &str {
        if job == Job::PointRead { &self.users_url } else { &self.orders_url }
    }

    /// Checks that the statement of the script finds as many rows, or writes, as the service does.
    pub async fn verify(&self, job: Job, n: u64) -> Result<()> {
        let statement = job.statement()?.replace(":rows", &PAGE_ROWS.to_string()).replace(":local", "true");
        let statement = statement.replace(":n", &format!("'{n}'"));
        let rows = connect(self.url(job)).await?.fetch_all(AssertSqlSafe(statement)).await?.len();
        let expected = if job == Job::OrderPage { PAGE_ROWS } else { 1 };
        ensure!(rows == expected, "{}: pgbench's statement gives {rows} rows for {n}, and not {expected}", job.name());
        Ok(())
    }

    /// Has it do a job for so long.
    pub async fn measure(&self, job: Job, length: Duration, postgres: u32) -> Result<Figures> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("script.sql");
        fs::write(&script, job.script()?)?;
        self.run(job, &script, WARM_UP, None).await?;
        let meter = Meter::start(None, None, postgres)?;
        let said = self.run(job, &script, length, Some(&folder.path().join("latencies"))).await?;
        let used = meter.stop()?;
        Ok(Figures::new(said.rate, &latencies(folder.path())?, said.transactions, used, said.failures))
    }

    async fn run(&self, job: Job, script: &Path, length: Duration, log: Option<&Path>) -> Result<Said> {
        let options: PgConnectOptions = self.url(job).parse()?;
        let mut pgbench = Command::new(&self.program);
        pgbench.args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--client", &DATABASE_CONNECTIONS.to_string()]);
        pgbench.args(["--time", &length.as_secs().to_string(), "--file"]).arg(script);
        if let Some(prefix) = log {
            pgbench.args(["--log", "--sampling-rate", SAMPLING_RATE, "--log-prefix"]).arg(prefix);
        }
        pgbench.args(["--host", options.get_host(), "--port", &options.get_port().to_string()]);
        pgbench.args(["--username", options.get_username(), options.get_database().unwrap_or_default()]);
        pgbench.env("PGPASSWORD", &self.password);
        let output = pgbench
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("{} cannot be run: install Postgres' contrib package", self.program.display()))?;
        let report = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        Said::read(&report).with_context(|| format!("pgbench's report is not as expected: {report}"))
    }
}

impl Said {
    fn read(report: &str) -> Option<Self> {
        let after = |label: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(label))?;
            line.split_whitespace().next()
        };
        Some(Self {
            transactions: after("number of transactions actually processed: ")?.parse().ok()?,
            rate: after("tps = ")?.parse().ok()?,
            failures: after("number of failed transactions: ")?.parse().ok()?,
        })
    }
}

/// In microseconds, sorted, from the logs of all its threads: the third column of each.
fn latencies(folder: &Path) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("latencies") {
            let log = fs::read_to_string(entry.path())?;
            latencies.extend(log.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok()));
        }
    }
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "pgbench wrote no latencies");
    Ok(latencies)
}
