//! What a move costs: copy, comparison and pause of `splitctl`, beside `pg_dump | psql` and an md5 of all rows.

#![allow(clippy::disallowed_methods, reason = "runs as the owner, in no service")]

mod command;
mod load;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bench::{Format, Options};
use dev::postgres::{Cluster, allow_login, connect};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Executor};

use command::{Splitctl, dump_and_restore};
use load::Load;

/// As a server that people use; `fsync` included, since a move waits for commits of both servers.
const SETTINGS: [&str; 7] = [
    "fsync=on",
    "full_page_writes=on",
    "wal_level=logical",
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "max_locks_per_transaction=512",
    "autovacuum=off",
];
/// The tables of the move of many small tables, and the rows of each.
const SMALL: (usize, u64) = (400, 100);
/// The numbers of tables whose pauses are measured.
const TABLES: [usize; 3] = [10, 100, 800];
/// The switches at each number of tables.
const SWITCHES: usize = 10;

/// A figure beside its peer. Times are in seconds.
#[derive(Debug, Serialize)]
struct Beside {
    what: String,
    splitctl: f64,
    peer: &'static str,
    peer_seconds: f64,
    mebibytes: u64,
}

/// How long writers waited at one number of tables, in milliseconds.
#[derive(Debug, Serialize)]
struct Pauses {
    tables: usize,
    p50: f64,
    longest: f64,
    /// The longest wait of a client for a write around a switch.
    client: f64,
    refused: u64,
}

/// All figures.
#[derive(Debug, Default, Serialize)]
struct Report {
    beside: Vec<Beside>,
    pauses: Vec<Pauses>,
}

/// Measures everything, and reports.
pub async fn run(programs: &Path, options: &Options) -> Result<ExitCode> {
    let mut report = Report::default();
    let (tables, rows) = SMALL;
    copy(&mut report, programs, &format!("{tables} small tables"), &small(tables, rows), tables).await?;
    let rows = options.rows;
    copy(&mut report, programs, &format!("one table of {rows} rows"), &large(rows), 1).await?;
    for tables in TABLES {
        let pauses = pauses(programs, tables).await?;
        eprintln!("{tables} tables: pause p50 {:.1} ms, longest {:.1} ms", pauses.p50, pauses.longest);
        report.pauses.push(pauses);
    }
    match options.format {
        Format::Text => print!("{}", text(&report)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn small(tables: usize, rows: u64) -> String {
    let table = |n: usize| {
        format!(
            "create table t{n} (id bigint primary key, a integer, b text);
             create index on t{n} (a);
             insert into t{n} select i, i % 10, md5(i::text) from generate_series(1, {rows}) i;
             grant select, insert, update, delete on t{n} to app;"
        )
    };
    (1..=tables).map(table).collect()
}

fn large(rows: u64) -> String {
    format!(
        "create table t1 (id bigint primary key, a integer, b text, c timestamptz, d uuid);
         insert into t1 select i, i % 1000, md5(i::text) || md5((i + 1)::text), now(), gen_random_uuid()
             from generate_series(1, {rows}) i;
         create index on t1 (a); create index on t1 (b); create index on t1 (d);
         grant select, insert, update, delete on t1 to app;
         analyze t1;"
    )
}

/// Two servers, with the tables in the first.
async fn servers(schema: &str) -> Result<[Cluster; 2]> {
    let clusters = [Cluster::temporary_with(&SETTINGS)?, Cluster::temporary_with(&SETTINGS)?];
    for cluster in &clusters {
        let mut owner = connect(&cluster.url("postgres")).await?;
        for statement in ["create role app", "create database bench", "create database dumped"] {
            owner.execute(statement).await?;
        }
        allow_login(&mut owner, "app", cluster.password()).await?;
    }
    connect(&clusters[0].url("bench")).await?.execute(AssertSqlSafe(schema.to_owned())).await?;
    Ok(clusters)
}

async fn copy(report: &mut Report, programs: &Path, what: &str, schema: &str, tables: usize) -> Result<()> {
    eprintln!("{what}: filling");
    let [source, target] = servers(schema).await?;
    let mut owner = connect(&source.url("bench")).await?;
    owner.execute("checkpoint").await?;
    let dumped = dump_and_restore(&source, &source.url("bench"), &target.url("dumped")).await?;
    let splitctl = Splitctl::new(programs, &source, &target, tables)?;
    let copied = splitctl.run(&["copy", "shop"]).await?;
    eprintln!("{what}: copied in {:.1} s, pg_dump | psql took {dumped:.1} s", copied.seconds);
    let compared = splitctl.run(&["verify", "shop"]).await?;
    let started = Instant::now();
    for table in 1..=tables {
        let sum = format!("select sum(('x' || left(md5(t::text), 8))::bit(32)::int8) from t{table} t");
        owner.execute(AssertSqlSafe(sum)).await?;
    }
    let summed = started.elapsed().as_secs_f64();
    report.beside.push(Beside {
        what: format!("copy of {what}"),
        splitctl: copied.seconds,
        peer: "pg_dump | psql",
        peer_seconds: dumped,
        mebibytes: copied.peak >> 20,
    });
    report.beside.push(Beside {
        what: format!("verify of {what}"),
        splitctl: compared.seconds,
        peer: "md5 of one side",
        peer_seconds: summed,
        mebibytes: compared.peak >> 20,
    });
    Ok(())
}

async fn pauses(programs: &Path, tables: usize) -> Result<Pauses> {
    let [source, target] = servers(&small(tables, 10)).await?;
    let splitctl = Splitctl::new(programs, &source, &target, tables)?;
    splitctl.run(&["copy", "shop"]).await?;
    let load = Load::start(&[source.url_as("app", "bench"), target.url_as("app", "bench")], tables);
    let mut pauses = Vec::new();
    for switch in 0..SWITCHES {
        splitctl.run(&["verify", "shop"]).await?;
        let step = if switch % 2 == 0 { "cutover" } else { "rollback" };
        let switched = splitctl.run(&[step, "shop", "--format", "json", "--max-pause", "30s"]).await?;
        let document: serde_json::Value = serde_json::from_str(&switched.output)?;
        pauses.push(document["pause"]["total"].as_f64().context("a pause")?);
    }
    let (client, refused) = load.stop().await?;
    pauses.sort_by(f64::total_cmp);
    Ok(Pauses { tables, p50: pauses[SWITCHES / 2], longest: pauses[SWITCHES - 1], client, refused })
}

fn text(report: &Report) -> String {
    let mut text = format!("{:<36}{:>10}{:>22}{:>8}{:>10}\n", "", "splitctl", "beside", "share", "memory");
    for Beside { what, splitctl, peer, peer_seconds, mebibytes } in &report.beside {
        let beside = format!("{peer} {peer_seconds:.1} s");
        let share = splitctl / peer_seconds.max(0.001);
        text += &format!(
            "{what:<36}{:>10}{beside:>22}{share:>8.2}{:>10}\n",
            format!("{splitctl:.1} s"),
            format!("{mebibytes} MiB")
        );
    }
    text += &format!("\n{:<36}{:>10}{:>10}{:>16}{:>10}\n", "pause in ms", "p50", "longest", "client's wait", "refused");
    for Pauses { tables, p50, longest, client, refused } in &report.pauses {
        let what = format!("{tables} tables, {SWITCHES} switches");
        text += &format!("{what:<36}{p50:>10.1}{longest:>10.1}{client:>16.1}{refused:>10}\n");
    }
    text
}
