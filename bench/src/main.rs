//! Measures how fast the services are. `cargo xtask bench` builds this program and the servers, and runs it.
//!
//! All contestants run in one run on one private Postgres. Figures of another machine or another hour cannot be compared.

mod contestants;
mod cpu;
mod figures;
mod jobs;
mod load;
mod moves;
mod report;
mod seed;
mod sizes;
mod ways;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::{Format, Options};
use clap::Parser;
use contestants::{Contestant, Contestants, DATABASE_CONNECTIONS};
use dev::postgres::{Cluster, Programs, connect};
use dev::process::stop_signal;
use figures::Figures;
use jobs::{Job, ORDERS, USERS};
use report::{Report, SetUp};
use sqlx::{Executor, Row};

/// All rows fit into the cache, and neither a checkpoint nor autovacuum disturbs a measurement.
const SETTINGS: [&str; 5] =
    ["shared_buffers=512MB", "fsync=off", "autovacuum=off", "checkpoint_timeout=1d", "max_wal_size=64GB"];

// One thread: the load needs little CPU time, and the contestants need the rest.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // A download happens before signals are handled, so Ctrl-C ends it at once.
    let done = match Programs::find() {
        Err(error) => Err(error.into()),
        Ok(_) => tokio::select! {
            done = run(&options) => done,
            // Dropping `run` stops all that it has started.
            stopped = async { stop_signal()?.await; Ok(ExitCode::from(130)) } => stopped,
        },
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(options: &Options) -> Result<ExitCode> {
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("this program lies in a folder")?;
    eprintln!("starting Postgres");
    if options.moves {
        return moves::run(programs, options).await;
    }
    if !options.sizes.is_empty() {
        return sizes::run(programs, options).await;
    }
    let cluster = Cluster::temporary_with(&SETTINGS)?;
    seed::seed(&cluster).await?;
    if options.ways {
        return ways::run(&cluster, programs, options).await;
    }
    eprintln!("starting the servers");
    let contestants = Contestants::start(&cluster, seed::DATABASE, programs).await?;
    contestants.verify().await?;
    let figures = measure(&contestants, options).await?;
    let report = Report::new(set_up(&cluster, options).await?, &figures);
    match options.format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let failures = report.failures();
    if failures > 0 {
        eprintln!("error: {failures} answers were wrong");
    }
    Ok(if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Each contestant does each job once a round, so a change of the machine or the tables affects all of them.
async fn measure(contestants: &Contestants, options: &Options) -> Result<Vec<(Job, Contestant, Figures)>> {
    let turns: Vec<_> = Job::ALL.into_iter().flat_map(|job| Contestant::ALL.map(|contestant| (job, contestant))).collect();
    let mut rounds = vec![Vec::new(); turns.len()];
    for round in 1..=options.rounds {
        for (&(job, contestant), figures) in turns.iter().zip(&mut rounds) {
            let length = Duration::from_secs(options.seconds.into());
            let measured = contestants.measure(contestant, job, length).await?;
            eprintln!(
                "round {round} of {}: {}, {}: {:.0} requests/s (others had {:.0} % of the CPUs)",
                options.rounds,
                job.name(),
                contestant.name(),
                measured.requests_per_second,
                measured.cpu_of_others * 100.0
            );
            figures.push(measured);
        }
    }
    let medians = turns.into_iter().zip(&rounds);
    Ok(medians.map(|((job, contestant), rounds)| (job, contestant, Figures::medians(rounds))).collect())
}

async fn set_up(cluster: &Cluster, options: &Options) -> Result<SetUp> {
    let row = connect(&cluster.url("postgres")).await?.fetch_one("show server_version").await?;
    let version: String = row.get(0);
    Ok(SetUp {
        cores: std::thread::available_parallelism()?.get(),
        postgres: version.split(' ').next().unwrap_or_default().to_owned(),
        settings: SETTINGS.map(str::to_owned).to_vec(),
        users: USERS,
        orders: ORDERS,
        http_connections: load::CONNECTIONS,
        database_connections: DATABASE_CONNECTIONS,
        seconds: options.seconds,
        rounds: options.rounds,
    })
}
