//! How fast events travel from users to the replica of orders.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dev::http::Client;
use serde_json::json;

use super::pair::Pair;
use super::report::Events;
use super::{Scene, Way};
use crate::contestants::server::Server;
use crate::jobs::{FIRST, ID_PREFIX, USERS};
use crate::seed;

/// How many changes to time until the replica has them.
const CHANGES: u64 = 200;
/// How many consumers to kill.
const KILLS: u64 = 3;
/// How long a change may take, and a metric may stand still.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// About how many bytes key and headers of an event's record have, beside its data.
const AROUND: u64 = 262;

/// Measures one way to carry events: single changes, then `events` of them at once, then a consumer that dies.
pub async fn measure(scene: &Scene<'_>, way: Way, variables: &[(&'static str, String)], events: u64) -> Result<Events> {
    let mut pair = Pair::start(scene, way, variables).await?;
    let mut times = Vec::new();
    for n in 1..=CHANGES {
        times.push(time_change(&mut pair, n, way.name()).await?.as_secs_f64() * 1e3);
    }
    // The first changes wait for the consumer to connect.
    times.drain(..5);
    times.sort_by(f64::total_cmp);
    let percentile = |percent: usize| times[(times.len() - 1) * percent / 100];

    // First the relay alone, then the consumer alone.
    pair.stop_orders();
    let is_published = way != Way::Replica;
    let users = Client::at(pair.users()?.address());
    let before = if is_published { read_metric(&users, "events_published_total{topic=\"users\"").await? } else { 0.0 };
    flood(&mut pair, events).await?;
    let published = if is_published {
        Some(rate(&users, "events_published_total{topic=\"users\"", before, events).await?)
    } else {
        None
    };
    pair.start_orders().await?;
    let orders = Client::at(pair.orders()?.address());
    let consumed = rate(&orders, "events_consumed_total{of=\"users\"", 0.0, events).await?;
    pair.until_equal().await?;
    let bytes = "select avg(octet_length(data::text))::bigint from user_events where version > 2";
    let bytes: i64 = sqlx::query_scalar(bytes).fetch_one(&mut pair.owner).await?;
    let result = Events {
        way,
        p50_ms: percentile(50),
        p99_ms: percentile(99),
        published_per_second: published,
        consumed_per_second: consumed,
        relay_peak_mib: pair.users()?.peak_mib()?,
        consumer_peak_mib: pair.orders()?.peak_mib()?,
        bytes: is_published.then_some(bytes.unsigned_abs() + AROUND),
        takeover_seconds: take_over(&mut pair, way.name()).await?,
    };
    eprintln!(
        "{}: {:.0} events/s published, {consumed:.0} consumed, taken over after {:.1} s",
        way.name(),
        published.unwrap_or_default(),
        result.takeover_seconds
    );
    pair.end().await?;
    Ok(result)
}

/// The time from the answer to a change of a user until orders' replica has it.
async fn time_change(pair: &mut Pair<'_>, n: u64, by: &str) -> Result<Duration> {
    let id = format!("{ID_PREFIX}{}", FIRST + n);
    let name = format!("Renamed {n} by {by} at {:?}", Instant::now());
    let users = Client::at(pair.users()?.address());
    users.patch(format!("/users/{id}")).json(&json!({ "name": name })).answered(200).await?;
    let answered = Instant::now();
    let seen = "select exists (select from customers_replica where id = $1::text::uuid and name = $2)";
    while !sqlx::query_scalar::<_, bool>(seen).bind(&id).bind(&name).fetch_one(&mut pair.owner).await? {
        if answered.elapsed() > PATIENCE {
            bail!("the replica does not receive the change of {id}");
        }
    }
    Ok(answered.elapsed())
}

/// Appends events to the log of users, as fast as it can be done.
async fn flood(pair: &mut Pair<'_>, events: u64) -> Result<()> {
    let mut left = events;
    while left > 0 {
        let some = left.min(USERS);
        seed::fill(&mut pair.owner, include_str!("flood.sql"), &[("n", some)]).await?;
        left -= some;
    }
    Ok(())
}

/// By how much a counter grows each second, from the first step above `before` until `events` are counted.
async fn rate(service: &Client, counter: &str, before: f64, events: u64) -> Result<f64> {
    let mut first = None;
    let mut last = (before, Instant::now());
    loop {
        let now = (read_metric(service, counter).await?, Instant::now());
        ensure!(now.0 > last.0 || last.1.elapsed() < PATIENCE, "{counter} stands still at {}", now.0);
        if now.0 > last.0 {
            last = now;
        }
        match first {
            None if now.0 > before => first = Some(now),
            Some((count, begun)) if now.0 >= before + events as f64 => {
                return Ok((now.0 - count) / (now.1 - begun).as_secs_f64());
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The value of the metric whose line begins so; 0 before it is there.
async fn read_metric(service: &Client, begin: &str) -> Result<f64> {
    let page = service.get("/metrics").send().await?.text();
    let Some(line) = page.lines().find(|line| line.starts_with(begin)) else { return Ok(0.0) };
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).with_context(|| format!("{line} has no number"))
}

/// Kills the consumer while another process waits, as a crash would: the longest time until a change arrives.
async fn take_over(pair: &mut Pair<'_>, by: &str) -> Result<f64> {
    let mut longest = 0.0_f64;
    for kill in 1..=KILLS {
        let consumer: Server = pair.take_orders()?;
        pair.start_orders().await?;
        // The first one still has the lock.
        time_change(pair, CHANGES + 2 * kill, by).await?;
        let killed = Instant::now();
        consumer.kill()?;
        time_change(pair, CHANGES + 2 * kill + 1, by).await?;
        longest = longest.max(killed.elapsed().as_secs_f64());
    }
    Ok(longest)
}
