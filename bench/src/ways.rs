//! What each way for orders to read a customer costs, how well it works while users is stopped, and how fast events travel.

#![allow(clippy::disallowed_methods, reason = "runs as the owner, in no service")]

mod broker;
mod events;
mod pair;
mod picture;
mod report;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::{Format, Options};
use dev::postgres::{Cluster, connect};
use serde::Serialize;
use sqlx::Executor;

use crate::figures::Figures;
use crate::jobs::Job;
use crate::load::Load;
use crate::seed;

use broker::Brokers;
use pair::Pair;
use report::{Entry, Peer, Report};

/// Reads an order with its customer; places an order.
const JOBS: [Job; 2] = [Job::OrderRead, Job::OrderCreate];

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
    /// The view on a table that the events of users' feed update.
    Replica,
    /// The same, by events from Kafka.
    ReplicaByKafka,
    /// The same, by events from RabbitMQ.
    ReplicaByRabbitmq,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::SharedDatabase, Self::Http, Self::Grpc, Self::Replica, Self::ReplicaByKafka, Self::ReplicaByRabbitmq];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SharedDatabase => "shared database",
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
            Self::Replica => "replica",
            Self::ReplicaByKafka => "replica, Kafka",
            Self::ReplicaByRabbitmq => "replica, RabbitMQ",
        }
    }

    /// Whether orders has its own copy of the customers.
    fn has_replica(self) -> bool {
        matches!(self, Self::Replica | Self::ReplicaByKafka | Self::ReplicaByRabbitmq)
    }

    /// The cursor of the relays to its broker.
    fn relay_cursor(self) -> Option<&'static str> {
        match self {
            Self::ReplicaByKafka => Some("own log, to the broker"),
            Self::ReplicaByRabbitmq => Some("own log, to RabbitMQ"),
            Self::SharedDatabase | Self::Http | Self::Grpc | Self::Replica => None,
        }
    }

    /// The variables that select it in both services; `None` without its broker.
    fn variables(self, brokers: &Brokers) -> Option<Vec<(&'static str, String)>> {
        let (customers, events, more) = match self {
            Self::SharedDatabase => ("local", "off", Vec::new()),
            Self::Http => ("http", "off", Vec::new()),
            Self::Grpc => ("grpc", "off", Vec::new()),
            Self::Replica => ("local", "feed", Vec::new()),
            Self::ReplicaByKafka => ("local", "kafka", brokers.kafka.as_ref()?.variables().to_vec()),
            Self::ReplicaByRabbitmq => ("local", "rabbitmq", vec![("RABBITMQ_URL", brokers.rabbitmq.as_ref()?.url())]),
        };
        let dials = [("CUSTOMERS_VIA", customers), ("EVENTS_VIA", events)].map(|(name, value)| (name, value.to_owned()));
        Some(more.into_iter().chain(dials).collect())
    }
}

/// Measures all ways, and reports.
pub async fn run(cluster: &Cluster, programs: &Path, options: &Options) -> Result<ExitCode> {
    let brokers = Brokers::start(options)?;
    // The first thing that its relay would do is to publish it.
    connect(&cluster.url(seed::DATABASE)).await?.execute("truncate order_events").await?;
    let ways = Way::ALL.into_iter().filter_map(|way| Some((way, way.variables(&brokers)?))).collect();
    let scene = Scene { cluster, programs, ways, length: Duration::from_secs(options.seconds.into()) };
    let rounds = scene.measure(options.rounds).await?;
    let results = scene.without_users(&rounds).await?;
    let mut events = Vec::new();
    for (way, variables) in scene.ways.iter().filter(|(way, _)| way.has_replica()) {
        events.push(events::measure(&scene, *way, variables, options.events).await?);
    }
    let peer = match &brokers.kafka {
        Some(kafka) => {
            let bytes = events.iter().find_map(|events| events.bytes).context("Kafka's events were measured")?;
            Some(Peer { broker: kafka.name(), bytes, produced_per_second: kafka.produce(options.events, bytes)? })
        }
        None => None,
    };
    let report = Report { results, events, peer };
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
    /// Each way with its variables.
    ways: Vec<(Way, Vec<(&'static str, String)>)>,
    length: Duration,
}

impl Scene<'_> {
    /// Measures each way while users runs.
    async fn measure(&self, rounds: u32) -> Result<Rounds> {
        let mut all: Rounds = vec![vec![Vec::new(); JOBS.len()]; self.ways.len()];
        for round in 1..=rounds {
            for ((way, variables), of_way) in self.ways.iter().zip(&mut all) {
                let pair = Pair::start(self, *way, variables).await?;
                for (&job, figures) in JOBS.iter().zip(of_way) {
                    let measured = pair.measure(job, self.length).await?;
                    let rate = measured.requests_per_second;
                    eprintln!("round {round} of {rounds}: {}, {}: {rate:.0} requests/s", job.name(), way.name());
                    figures.push(measured);
                }
                pair.end().await?;
            }
        }
        Ok(all)
    }

    /// Measures each way after users has stopped.
    async fn without_users(&self, rounds: &Rounds) -> Result<Vec<Entry>> {
        let mut results = Vec::new();
        for ((way, variables), of_way) in self.ways.iter().zip(rounds) {
            let mut pair = Pair::start(self, *way, variables).await?;
            // No job depends on what another one has read or written before.
            pair.stop_users();
            for (&job, rounds) in JOBS.iter().zip(of_way) {
                let answers = Load::connect(pair.orders()?.address(), job).await?.drive(self.length).await?;
                let requests = answers.latencies.len();
                let done = (requests as u64 - answers.failures) as f64 / requests as f64;
                eprintln!("without users: {}, {}: {:.0} % done", job.name(), way.name(), done * 100.0);
                results.push(Entry {
                    way: *way,
                    job,
                    figures: Figures::medians(rounds),
                    done_without_users: done,
                    p50_ms_without_users: f64::from(answers.latencies[requests / 2]) / 1e3,
                });
            }
            pair.end().await?;
        }
        Ok(results)
    }
}
