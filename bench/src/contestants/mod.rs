//! The contestants: the services, two minimal servers, and pgbench.

mod pgbench;
pub mod server;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE};
use serde::Serialize;
use serde_json::Value;

use crate::figures::Figures;
use crate::jobs::{Job, PAGE_ROWS};
use pgbench::Pgbench;
use server::Server;

/// Connections to Postgres for each contestant.
pub const DATABASE_CONNECTIONS: u32 = 8;
/// How long each job runs before the measurement.
pub const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Contestant {
    /// The services users and orders.
    Service,
    /// `bench-peer`: the same by a minimal server of axum and tokio-postgres.
    Peer,
    /// `bench-sqlx`: the same by a minimal server of axum and sqlx, the services' driver.
    Sqlx,
    /// The same SQL without a server: the limit.
    Pgbench,
}

impl Contestant {
    pub const ALL: [Self; 4] = [Self::Service, Self::Peer, Self::Sqlx, Self::Pgbench];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Peer => "peer",
            Self::Sqlx => "sqlx",
            Self::Pgbench => "pgbench",
        }
    }
}

/// All contestants, running.
pub struct Contestants {
    users: Server,
    orders: Server,
    peer: Server,
    sqlx: Server,
    pgbench: Pgbench,
    postgres: u32,
}

impl Contestants {
    /// Starts all of them. `programs` is the folder of their programs.
    pub async fn start(cluster: &Cluster, database: &str, programs: &Path) -> Result<Self> {
        let users_url = cluster.url_as(USERS_ROLE, database);
        let orders_url = cluster.url_as(ORDERS_ROLE, database);
        let connections = DATABASE_CONNECTIONS.to_string();
        let common = [("RUST_LOG", "warn"), ("USERS_GRPC_ADDR", "127.0.0.1:0"), ("DATABASE_MAX_CONNECTIONS", &connections)];
        let databases = [("USERS_DATABASE_URL", users_url.as_str()), ("ORDERS_DATABASE_URL", orders_url.as_str())];
        let variables = common.iter().chain(&databases).copied();
        Ok(Self {
            users: Server::start(programs, "users", "USERS_ADDR", variables.clone()).await?,
            orders: Server::start(programs, "orders", "ORDERS_ADDR", variables.clone()).await?,
            peer: Server::start(programs, "bench-peer", "PEER_ADDR", variables.clone()).await?,
            sqlx: Server::start(programs, "bench-sqlx", "PEER_ADDR", variables).await?,
            pgbench: Pgbench::new(cluster, database)?,
            postgres: cluster.process_id().context("Postgres has ended")?,
        })
    }

    fn service(&self, job: Job) -> &Server {
        if job == Job::PointRead { &self.users } else { &self.orders }
    }

    /// Measures a contestant's job for `length`.
    pub async fn measure(&self, contestant: Contestant, job: Job, length: Duration) -> Result<Figures> {
        let doing = || format!("{} by {}", job.name(), contestant.name());
        match contestant {
            Contestant::Service => self.service(job).measure(job, length, None, self.postgres).await,
            Contestant::Peer => self.peer.measure(job, length, None, self.postgres).await,
            Contestant::Sqlx => self.sqlx.measure(job, length, None, self.postgres).await,
            Contestant::Pgbench => self.pgbench.measure(job, length, self.postgres).await,
        }
        .with_context(doing)
    }

    /// Checks that all contestants give the same, complete answers.
    pub async fn verify(&self) -> Result<()> {
        for job in Job::ALL {
            let (first, last) = (*job.numbers().start(), *job.numbers().end());
            for n in (0..=20).map(|part| first + (last - first) * part / 20) {
                let answer = self.service(job).call(job, n).await?;
                if job == Job::OrderPage {
                    let orders = answer["items"].as_array().map(Vec::len);
                    ensure!(orders == Some(PAGE_ROWS - 1), "the page of {} is not full: {answer}", job.path(n));
                }
                let ours = comparable(job, answer);
                for (name, minimal) in [("peer", &self.peer), ("sqlx", &self.sqlx)] {
                    let theirs = comparable(job, minimal.call(job, n).await?);
                    ensure!(ours == theirs, "{}: {ours} by the service, {theirs} by {name}", job.path(n));
                }
                self.pgbench.verify(job, n).await?;
            }
        }
        Ok(())
    }
}

/// An answer without what differs each time, or from one server to the other.
fn comparable(job: Job, mut answer: Value) -> Value {
    let own: &[&str] = match job {
        Job::PointRead | Job::OrderRead => &[],
        Job::OrderPage => &["next_cursor"],
        Job::OrderCreate => &["id", "placed_at", "updated_at"],
    };
    for field in own {
        answer[*field].take();
    }
    answer
}
