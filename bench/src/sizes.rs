//! What requests cost while the log of orders grows: the same requests, one after the other, at several numbers of events.

#![allow(clippy::disallowed_methods, reason = "runs as the owner, in no service")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::{Format, Options};
use chassis::events::Position;
use chassis::http::cursor;
use chassis::http::page::Place;
use dev::http::{Call, Client};
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE};
use fastrand::Rng;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use crate::contestants::server::Server;
use crate::jobs::{FIRST, ID_PREFIX, Job};
use crate::seed;

/// Events of each order.
const EVENTS: u64 = 2;
/// Users, all of whom may order.
const USERS: u64 = 1000;
/// The newest orders: those that clients mostly read. The smallest log must have as many.
const NEWEST: u64 = 1000;
/// Orders that one transaction adds.
const CHUNK: u64 = 250_000;
/// Cursors of the feed, spread over the log.
const CURSORS: usize = 500;
/// Requests before the measurement.
const WARM_UP: usize = 100;

/// A kind of request.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    ReadNewest,
    ReadAny,
    History,
    AsOf,
    Page,
    End,
    Create,
}

impl Request {
    const ALL: [Self; 7] = [Self::ReadNewest, Self::ReadAny, Self::History, Self::AsOf, Self::Page, Self::End, Self::Create];

    fn name(self) -> &'static str {
        match self {
            Self::ReadNewest => "read one of the newest orders",
            Self::ReadAny => "read any order",
            Self::History => "history of any order",
            Self::AsOf => "any order as of a time",
            Self::Page => "page of 100 events, anywhere",
            Self::End => "page at the end of the feed",
            Self::Create => "place an order",
        }
    }
}

/// The cost of a request at one size.
#[derive(Debug, Serialize)]
struct Cost {
    events: u64,
    request: Request,
    p50_ms: f64,
    p99_ms: f64,
}

/// A log of 20 million events is larger than the cache. With checkpoints, its WAL does not fill the disk as well.
const SETTINGS: [&str; 4] = ["shared_buffers=512MB", "fsync=off", "autovacuum=off", "max_wal_size=4GB"];

/// Measures at each size, and reports.
pub async fn run(programs: &Path, options: &Options) -> Result<ExitCode> {
    let smallest = EVENTS * NEWEST;
    ensure!(options.sizes.iter().all(|size| *size >= smallest), "--sizes: each must be at least {smallest}");
    ensure!(options.sizes.is_sorted(), "--sizes: they must grow, because the log does");
    let cluster = Cluster::temporary_with(&SETTINGS)?;
    let mut owner = seed::create(&cluster).await?;
    seed::fill(&mut owner, include_str!("seed/users.sql"), &[("users", USERS), ("active_users", USERS)]).await?;
    let (mut costs, mut orders) = (Vec::new(), 0);
    for &size in &options.sizes {
        grow(&mut owner, orders, size / EVENTS).await?;
        orders = size / EVENTS;
        let url = cluster.url_as(ORDERS_ROLE, seed::DATABASE);
        let users_url = cluster.url_as(USERS_ROLE, seed::DATABASE);
        let variables = [("RUST_LOG", "warn"), ("ORDERS_DATABASE_URL", &*url), ("USERS_DATABASE_URL", &*users_url)];
        let server = Server::start(programs, "orders", "ORDERS_ADDR", variables.into_iter()).await?;
        let mut client = Reader::new(&mut owner, Client::at(server.address()), orders).await?;
        for request in Request::ALL {
            let (p50_ms, p99_ms) = client.measure(request, Duration::from_secs(options.seconds.into())).await?;
            eprintln!("{size} events: {}: {p50_ms:.2} ms, p99 {p99_ms:.2} ms", request.name());
            costs.push(Cost { events: size, request, p50_ms, p99_ms });
        }
    }
    match options.format {
        Format::Text => print!("{}", table(&options.sizes, &costs)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&costs)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the orders from number `from` + 1 to `to`.
async fn grow(owner: &mut PgConnection, from: u64, to: u64) -> Result<()> {
    let started = Instant::now();
    let mut at = from;
    while at < to {
        let next = to.min(at + CHUNK);
        let numbers = [("from", at + 1), ("to", next), ("users", USERS)];
        seed::fill(owner, include_str!("sizes/orders.sql"), &numbers).await?;
        at = next;
        eprintln!("seeding: {at} of {to} orders ({:.0} s)", started.elapsed().as_secs_f64());
    }
    for statement in ["vacuum analyze", "checkpoint"] {
        owner.execute(statement).await?;
    }
    Ok(())
}

/// A client of orders, and what it asks for.
struct Reader {
    client: Client,
    orders: u64,
    cursors: Vec<String>,
    end: String,
    random: Rng,
}

impl Reader {
    async fn new(owner: &mut PgConnection, client: Client, orders: u64) -> Result<Self> {
        let mut random = Rng::with_seed(1);
        let ids: Vec<String> = (0..CURSORS).map(|_| format!("{ID_PREFIX}{}", FIRST + random.u64(1..=orders))).collect();
        let places = "select epoch, xid::text::bigint, position
                      from order_events
                      where order_id = any($1::text[]::uuid[]) and version = 1";
        let places = sqlx::query(AssertSqlSafe(places)).bind(ids).fetch_all(owner).await?;
        let cursors = places.iter().map(|row| {
            let position = Position { epoch: row.get(0), xid: row.get(1), position: row.get(2) };
            cursor::encode("feed/orders", &position.to_bytes())
        });
        let cursors = cursors.collect();
        let end = client.get("/events?from=end").send().await?;
        let end = end.header("link").split(['<', '>']).nth(1).context("a link")?.to_owned();
        Ok(Self { client, orders, cursors, end, random })
    }

    fn call(&mut self, request: Request) -> (Call, u16) {
        let newest = self.orders + 1 - NEWEST;
        let from = if matches!(request, Request::ReadNewest) { newest } else { 1 };
        let id = format!("{ID_PREFIX}{}", FIRST + self.random.u64(from..=self.orders));
        let user = FIRST + self.random.u64(1..=USERS);
        let call = match request {
            Request::ReadNewest | Request::ReadAny => self.client.get(format!("/orders/{id}")),
            Request::History => self.client.get(format!("/orders/{id}/events")),
            Request::AsOf => self.client.get(format!("/orders/{id}?as_of=2099-01-01T00:00:00Z")),
            Request::Page => {
                let cursor = &self.cursors[self.random.usize(..self.cursors.len())];
                self.client.get(format!("/events?after={cursor}"))
            }
            Request::End => self.client.get(&self.end),
            Request::Create => {
                let post = self.client.post("/orders").body("application/json", Job::OrderCreate.body(user));
                return (post, 201);
            }
        };
        (call, 200)
    }

    /// Sends requests for `length`: the median and the 99th percentile of their latencies, in milliseconds.
    async fn measure(&mut self, request: Request, length: Duration) -> Result<(f64, f64)> {
        let mut latencies = Vec::new();
        let mut started = Instant::now();
        for number in 0.. {
            if number == WARM_UP {
                latencies.clear();
                started = Instant::now();
            }
            if number > WARM_UP && started.elapsed() >= length {
                break;
            }
            let (call, status) = self.call(request);
            let sent = Instant::now();
            let answer = call.send().await?;
            latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            ensure!(answer.status == status, "{}: {} {}", request.name(), answer.status, answer.text());
        }
        latencies.sort_by(f64::total_cmp);
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        Ok((percentile(50), percentile(99)))
    }
}

/// One row a request, one column a size.
fn table(sizes: &[u64], costs: &[Cost]) -> String {
    let mut text = format!("{:<32}", "p50 / p99 in ms, events:");
    sizes.iter().for_each(|size| text.push_str(&format!("{size:>18}")));
    for request in Request::ALL {
        text.push_str(&format!("\n{:<32}", request.name()));
        for cost in costs.iter().filter(|cost| cost.request.name() == request.name()) {
            text.push_str(&format!("{:>18}", format!("{:.2} / {:.2}", cost.p50_ms, cost.p99_ms)));
        }
    }
    text.push_str("\n\nOne request at a time; each order has two events and two items; the pages have 100 events.\n");
    text
}
