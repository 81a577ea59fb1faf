//! What each way for orders to learn of a customer costs, and what it is worth when users is away.

#![allow(clippy::disallowed_methods, reason = "asks as the owner, and runs in no service")]

#[cfg(feature = "kafka")]
mod broker;
mod picture;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::http::Client;
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE, connect};
use serde::Serialize;
use serde_json::json;
use sqlx::{Executor, PgConnection};

use crate::contestants::DATABASE_CONNECTIONS;
use crate::contestants::server::Server;
use crate::figures::Figures;
use crate::jobs::{FIRST, ID_PREFIX, Job};
use crate::load::Load;
use crate::{Format, Options, seed};

/// What is measured: reading an order with its customer, and placing one.
const JOBS: [Job; 2] = [Job::OrderRead, Job::OrderCreate];
/// Changes whose way into the replica is timed.
const CHANGES: u64 = 200;
/// How long the replica may take to be filled, and a change to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A way for orders to learn of a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The view on users' table.
    SharedDatabase,
    /// A call by HTTP.
    Http,
    /// A call by gRPC.
    Grpc,
    /// The view on a table that events keep up.
    Replica,
}

impl Way {
    const ALL: [Self; 4] = [Self::SharedDatabase, Self::Http, Self::Grpc, Self::Replica];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SharedDatabase => "shared database",
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
            Self::Replica => "replica",
        }
    }

    /// What turns the dials of orders to it.
    fn variables(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::SharedDatabase => [("CUSTOMERS_VIA", "local"), ("EVENTS_VIA", "off")],
            Self::Http => [("CUSTOMERS_VIA", "http"), ("EVENTS_VIA", "off")],
            Self::Grpc => [("CUSTOMERS_VIA", "grpc"), ("EVENTS_VIA", "off")],
            Self::Replica => [("CUSTOMERS_VIA", "local"), ("EVENTS_VIA", "feed")],
        }
    }
}

/// A way's figures in a job.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The way.
    pub way: Way,
    /// The job.
    pub job: Job,
    /// While users is there.
    #[serde(flatten)]
    pub figures: Figures,
    /// The part of the requests that were done while users was stopped, from 0 to 1.
    pub done_without_users: f64,
    /// Half of the requests took no longer then, in milliseconds.
    pub p50_ms_without_users: f64,
}

/// The whole result.
#[derive(Debug, Serialize)]
struct Report {
    results: Vec<Entry>,
    staleness: Vec<Staleness>,
}

/// How long a change of a user takes, from its answer until the replica of orders has it.
#[derive(Debug, Serialize)]
struct Staleness {
    /// `the feed` or `Kafka`.
    by: &'static str,
    /// Half took no longer, in milliseconds.
    p50_ms: f64,
    /// 99 of 100 took no longer.
    p99_ms: f64,
}

/// Measures all ways, and reports.
pub async fn run(cluster: &Cluster, programs: &Path, options: &Options) -> Result<ExitCode> {
    let length = Duration::from_secs(options.seconds.into());
    let mut rounds: Vec<Vec<Vec<Figures>>> = vec![vec![Vec::new(); JOBS.len()]; Way::ALL.len()];
    for round in 1..=options.rounds {
        for (&way, of_way) in Way::ALL.iter().zip(&mut rounds) {
            let pair = Pair::start(cluster, programs, way, &[]).await?;
            for (&job, figures) in JOBS.iter().zip(of_way) {
                let measured = pair.orders.measure(job, length, Some(&pair.users), pair.postgres).await?;
                let rate = measured.requests_per_second;
                eprintln!("round {round} of {}: {}, {}: {rate:.0} requests/s", options.rounds, job.name(), way.name());
                figures.push(measured);
            }
            pair.end().await?;
        }
    }
    let mut results = Vec::new();
    let mut staleness = Vec::new();
    for (&way, of_way) in Way::ALL.iter().zip(&rounds) {
        let mut pair = Pair::start(cluster, programs, way, &[]).await?;
        if way == Way::Replica {
            staleness.push(pair.staleness("the feed").await?);
        }
        // Placing does not depend on who has been read before, and reading not on who has ordered.
        let Pair { users, orders, .. } = pair;
        drop(users);
        for (&job, rounds) in JOBS.iter().zip(of_way) {
            let mut load = Load::connect(orders.address(), job).await?;
            let answers = load.drive(length).await?;
            let requests = answers.latencies.len();
            let done = (requests as u64 - answers.failures) as f64 / requests as f64;
            eprintln!("without users: {}, {}: {:.0} % done", job.name(), way.name(), done * 100.0);
            results.push(Entry {
                way,
                job,
                figures: Figures::medians(rounds),
                done_without_users: done,
                p50_ms_without_users: f64::from(answers.latencies[requests / 2]) / 1e3,
            });
        }
        drop(orders);
        if way == Way::Replica {
            release(cluster).await?;
        }
    }
    #[cfg(feature = "kafka")]
    {
        let broker = broker::Broker::start()?;
        let variables = [("EVENTS_VIA", "kafka"), ("KAFKA_BROKERS", broker.address())];
        let mut pair = Pair::start(cluster, programs, Way::Replica, &variables).await?;
        staleness.push(pair.staleness("Kafka").await?);
        pair.end().await?;
    }
    let report = Report { results, staleness };
    if let Some(file) = &options.svg {
        fs::write(file, picture::draw(&report.results)).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    match options.format {
        Format::Text => print!("{}", report.text(options)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Both services, their dials turned to a way.
struct Pair {
    users: Server,
    orders: Server,
    owner: PgConnection,
    postgres: u32,
}

impl Pair {
    async fn start(cluster: &Cluster, programs: &Path, way: Way, more: &[(&str, &str)]) -> Result<Self> {
        let database = seed::DATABASE;
        let (of_users, of_orders) = (cluster.url_as(USERS_ROLE, database), cluster.url_as(ORDERS_ROLE, database));
        let grpc = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string();
        let connections = DATABASE_CONNECTIONS.to_string();
        let common = [("RUST_LOG", "off"), ("DATABASE_MAX_CONNECTIONS", &*connections), ("USERS_GRPC_ADDR", &*grpc)];
        let variables = common.into_iter().chain([("USERS_DATABASE_URL", &*of_users)]).chain(more.iter().copied());
        let users = Server::start(programs, "users", "USERS_ADDR", variables).await?;
        let url = format!("http://{}", users.address());
        let variables = common.into_iter().chain([("ORDERS_DATABASE_URL", &*of_orders), ("USERS_URL", &*url)]);
        let orders =
            Server::start(programs, "orders", "ORDERS_ADDR", variables.chain(way.variables()).chain(more.iter().copied()))
                .await?;
        let owner = connect(&cluster.url(database)).await?;
        let postgres = cluster.process_id().context("Postgres has ended")?;
        let mut pair = Self { users, orders, owner, postgres };
        if way == Way::Replica {
            pair.until("select count(*) > 0 from orders_cursors").await?;
            pair.owner.execute("vacuum analyze customers_replica").await?;
            pair.owner.execute(include_str!("../../migrations/replicas/customers.replace.sql")).await?;
        }
        Ok(pair)
    }

    async fn end(mut self) -> Result<()> {
        self.owner.execute(include_str!("../../migrations/replicas/customers.restore.sql")).await?;
        Ok(())
    }

    async fn until(&mut self, query: &'static str) -> Result<()> {
        let started = Instant::now();
        while !sqlx::query_scalar::<_, bool>(query).fetch_one(&mut self.owner).await? {
            if started.elapsed() > PATIENCE {
                bail!("never: {query}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// How long changes take to come.
    async fn staleness(&mut self, by: &'static str) -> Result<Staleness> {
        let users = Client::at(self.users.address());
        let mut times = Vec::new();
        for n in 1..=CHANGES {
            let id = format!("{ID_PREFIX}{}", FIRST + n);
            let name = format!("Renamed {n} by {by}");
            let changed = users.patch(format!("/users/{id}")).json(&json!({ "name": name })).send().await?;
            if changed.status != 200 {
                bail!("the change of {id} is answered {}: {}", changed.status, changed.text());
            }
            let answered = Instant::now();
            let seen = "select exists (select from customers_replica where id = $1::text::uuid and name = $2)";
            while !sqlx::query_scalar::<_, bool>(seen).bind(&id).bind(&name).fetch_one(&mut self.owner).await? {
                if answered.elapsed() > PATIENCE {
                    bail!("the change of {id} does not come");
                }
            }
            times.push(answered.elapsed().as_secs_f64() * 1e3);
        }
        // The first wait until somebody listens.
        times.drain(..5);
        times.sort_by(f64::total_cmp);
        let percentile = |percent: usize| times[(times.len() - 1) * percent / 100];
        Ok(Staleness { by, p50_ms: percentile(50), p99_ms: percentile(99) })
    }
}

async fn release(cluster: &Cluster) -> Result<()> {
    let mut owner = connect(&cluster.url(seed::DATABASE)).await?;
    owner.execute(include_str!("../../migrations/replicas/customers.restore.sql")).await?;
    Ok(())
}

impl Report {
    fn text(&self, options: &Options) -> String {
        let mut text = String::from(
            "| way | job | requests/s | p50 ms | p99 ms | orders µs | users µs | Postgres µs | done without users | p50 ms then |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for Entry { way, job, figures, done_without_users, p50_ms_without_users } in &self.results {
            let cpu = |time: Option<f64>| time.map_or("–".to_owned(), |time| format!("{time:.0}"));
            text += &format!(
                "| {} | {} | {:.0} | {:.2} | {:.2} | {} | {} | {:.0} | {:.0} % | {:.2} |\n",
                way.name(),
                job.name(),
                figures.requests_per_second,
                figures.p50_ms,
                figures.p99_ms,
                cpu(figures.server_cpu_us),
                cpu(figures.neighbour_cpu_us),
                figures.postgres_cpu_us,
                done_without_users * 100.0,
                p50_ms_without_users,
            );
        }
        text.push('\n');
        for Staleness { by, p50_ms, p99_ms } in &self.staleness {
            text += &format!(
                "A change of a user is in the replica after {p50_ms:.1} ms (median), {p99_ms:.1} ms (99 of 100), by {by}.\n"
            );
        }
        text + &format!(
            "Both services, Postgres and the load share the machine; 32 connections; medians of {} rounds of {} s; µs: CPU per request.\n",
            options.rounds, options.seconds,
        )
    }
}
