//! What each way for orders to read a customer costs, and how well it works while users is stopped.

#![allow(clippy::disallowed_methods, reason = "runs as the owner, in no service")]

#[cfg(feature = "kafka")]
mod broker;
mod picture;
mod report;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::{Format, Options};
use dev::http::Client;
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE, connect};
use dev::process::free_address;
use dev::wait::within;
use serde::Serialize;
use serde_json::json;
use sqlx::{Executor, PgConnection};

use crate::contestants::DATABASE_CONNECTIONS;
use crate::contestants::server::Server;
use crate::figures::Figures;
use crate::jobs::{FIRST, ID_PREFIX, Job};
use crate::load::Load;
use crate::seed;

use report::{Entry, Report, Staleness};

/// Reads an order with its customer; places an order.
const JOBS: [Job; 2] = [Job::OrderRead, Job::OrderCreate];
/// How many changes to time until the replica has them.
const CHANGES: u64 = 200;
/// How long the replica may take to be filled, or to receive a change.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lets orders read users' table again.
const RESTORE: &str = include_str!("../../migrations/replicas/customers.restore.sql");

/// A way for orders to read a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The view on users' table.
    SharedDatabase,
    /// A call by HTTP.
    Http,
    /// A call by gRPC.
    Grpc,
    /// The view on a table that events update.
    Replica,
}

impl Way {
    const ALL: [Self; 4] = [Self::SharedDatabase, Self::Http, Self::Grpc, Self::Replica];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SharedDatabase => "shared database",
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
            Self::Replica => "replica",
        }
    }

    /// The variables that select it in orders.
    fn variables(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::SharedDatabase => [("CUSTOMERS_VIA", "local"), ("EVENTS_VIA", "off")],
            Self::Http => [("CUSTOMERS_VIA", "http"), ("EVENTS_VIA", "off")],
            Self::Grpc => [("CUSTOMERS_VIA", "grpc"), ("EVENTS_VIA", "off")],
            Self::Replica => [("CUSTOMERS_VIA", "local"), ("EVENTS_VIA", "feed")],
        }
    }
}

/// Measures all ways, and reports.
pub async fn run(cluster: &Cluster, programs: &Path, options: &Options) -> Result<ExitCode> {
    let scene = Scene { cluster, programs, length: Duration::from_secs(options.seconds.into()) };
    let rounds = scene.measure(options.rounds).await?;
    let (results, mut staleness) = scene.without_users(&rounds).await?;
    if options.kafka {
        staleness.push(scene.staleness_by_kafka().await?);
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

/// The figures of all rounds, for each way and each job.
type Rounds = Vec<Vec<Vec<Figures>>>;

struct Scene<'a> {
    cluster: &'a Cluster,
    programs: &'a Path,
    length: Duration,
}

impl Scene<'_> {
    /// Measures each way while users runs.
    async fn measure(&self, rounds: u32) -> Result<Rounds> {
        let mut all: Rounds = vec![vec![Vec::new(); JOBS.len()]; Way::ALL.len()];
        for round in 1..=rounds {
            for (&way, of_way) in Way::ALL.iter().zip(&mut all) {
                let pair = Pair::start(self.cluster, self.programs, way, &[]).await?;
                for (&job, figures) in JOBS.iter().zip(of_way) {
                    let measured = pair.orders.measure(job, self.length, Some(&pair.users), pair.postgres).await?;
                    let rate = measured.requests_per_second;
                    eprintln!("round {round} of {rounds}: {}, {}: {rate:.0} requests/s", job.name(), way.name());
                    figures.push(measured);
                }
                pair.end().await?;
            }
        }
        Ok(all)
    }

    /// Measures each way after users has stopped, and the staleness of the replica before that.
    async fn without_users(&self, rounds: &Rounds) -> Result<(Vec<Entry>, Vec<Staleness>)> {
        let (mut results, mut staleness) = (Vec::new(), Vec::new());
        for (&way, of_way) in Way::ALL.iter().zip(rounds) {
            let mut pair = Pair::start(self.cluster, self.programs, way, &[]).await?;
            if way == Way::Replica {
                staleness.push(pair.staleness("the feed").await?);
            }
            // No job depends on what another one has read or written before.
            let Pair { users, orders, mut owner, .. } = pair;
            drop(users);
            for (&job, rounds) in JOBS.iter().zip(of_way) {
                let answers = Load::connect(orders.address(), job).await?.drive(self.length).await?;
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
            owner.execute(RESTORE).await?;
        }
        Ok((results, staleness))
    }

    #[cfg(feature = "kafka")]
    async fn staleness_by_kafka(&self) -> Result<Staleness> {
        let broker = broker::Broker::start()?;
        let variables = [("EVENTS_VIA", "kafka"), ("KAFKA_BROKERS", broker.address())];
        let mut pair = Pair::start(self.cluster, self.programs, Way::Replica, &variables).await?;
        let staleness = pair.staleness("Kafka").await?;
        pair.end().await?;
        Ok(staleness)
    }

    #[cfg(not(feature = "kafka"))]
    async fn staleness_by_kafka(&self) -> Result<Staleness> {
        bail!("--kafka: this program was built without the feature bench/kafka")
    }
}

/// Both services, with a way selected.
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
        let grpc = free_address().to_string();
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
        self.owner.execute(RESTORE).await?;
        Ok(())
    }

    async fn until(&mut self, query: &'static str) -> Result<()> {
        within(PATIENCE, query, async || Ok(sqlx::query_scalar(query).fetch_one(&mut self.owner).await?)).await
    }

    /// Times changes until the replica has them.
    async fn staleness(&mut self, by: &'static str) -> Result<Staleness> {
        let users = Client::at(self.users.address());
        let mut times = Vec::new();
        for n in 1..=CHANGES {
            let id = format!("{ID_PREFIX}{}", FIRST + n);
            let name = format!("Renamed {n} by {by}");
            users.patch(format!("/users/{id}")).json(&json!({ "name": name })).answered(200).await?;
            let answered = Instant::now();
            let seen = "select exists (select from customers_replica where id = $1::text::uuid and name = $2)";
            while !sqlx::query_scalar::<_, bool>(seen).bind(&id).bind(&name).fetch_one(&mut self.owner).await? {
                if answered.elapsed() > PATIENCE {
                    bail!("the replica does not receive the change of {id}");
                }
            }
            times.push(answered.elapsed().as_secs_f64() * 1e3);
        }
        // The first changes wait for the consumer to connect.
        times.drain(..5);
        times.sort_by(f64::total_cmp);
        let percentile = |percent: usize| times[(times.len() - 1) * percent / 100];
        Ok(Staleness { by, p50_ms: percentile(50), p99_ms: percentile(99) })
    }
}
