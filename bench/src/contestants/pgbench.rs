//! pgbench: the services' SQL without a service.

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

/// The part of the transactions whose latencies pgbench logs: enough for a percentile, and little work.
const SAMPLING_RATE: &str = "0.1";

/// Runs pgbench.
pub struct Pgbench {
    program: PathBuf,
    users_url: String,
    orders_url: String,
    password: String,
}

/// The figures that pgbench prints.
struct Printed {
    transactions: usize,
    rate: f64,
    failures: u64,
}

impl Pgbench {
    /// Finds a pgbench that is at least as new as the server.
    pub fn new(cluster: &Cluster, database: &str) -> Result<Self> {
        Ok(Self {
            program: cluster.client("pgbench")?,
            users_url: cluster.url_as(USERS_ROLE, database),
            orders_url: cluster.url_as(ORDERS_ROLE, database),
            password: cluster.password().to_owned(),
        })
    }

    fn url(&self, job: Job) -> &str {
        if job == Job::PointRead { &self.users_url } else { &self.orders_url }
    }

    /// Checks that the script's statement returns as many rows as the service's.
    pub async fn verify(&self, job: Job, n: u64) -> Result<()> {
        let statement = job.statement().replace(":rows", &PAGE_ROWS.to_string()).replace(":local", "true");
        let statement = statement.replace(":n", &format!("'{n}'"));
        let rows = connect(self.url(job)).await?.fetch_all(AssertSqlSafe(statement)).await?.len();
        let expected = if job == Job::OrderPage { PAGE_ROWS } else { 1 };
        ensure!(rows == expected, "{}: pgbench's statement returns {rows} rows for {n} instead of {expected}", job.name());
        Ok(())
    }

    /// Measures a job for `length`.
    pub async fn measure(&self, job: Job, length: Duration, postgres: u32) -> Result<Figures> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("script.sql");
        fs::write(&script, job.script())?;
        self.run(job, &script, WARM_UP, None).await?;
        let meter = Meter::start(None, None, postgres)?;
        let printed = self.run(job, &script, length, Some(&folder.path().join("latencies"))).await?;
        let used = meter.stop()?;
        Ok(Figures::new(printed.rate, &latencies(folder.path())?, printed.transactions, used, printed.failures))
    }

    async fn run(&self, job: Job, script: &Path, length: Duration, log: Option<&Path>) -> Result<Printed> {
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
            .with_context(|| format!("{} cannot be run", self.program.display()))?;
        let report = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        Printed::read(&report).with_context(|| format!("pgbench printed an unknown report: {report}"))
    }
}

impl Printed {
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

/// Latencies in microseconds, sorted: the third column in the logs of all its threads.
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
