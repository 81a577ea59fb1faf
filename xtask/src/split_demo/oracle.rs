//! The oracle: compares all acknowledged writes with the databases.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use dev::http::Client;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

use super::load::{Known, Seen};
use super::scene::Scene;

/// What the oracle has found.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that are missing or different.
    pub lost: u64,
    /// Events that the log has more than once. Repetitions in the feed are errors.
    pub doubled: u64,
    /// Rows that no request was acknowledged for, minus the failed requests.
    pub invented: u64,
    /// Rows of the replicas that differ from the other service's.
    pub stale: u64,
}

/// Compares both services' databases and feeds with what the load has seen.
pub async fn judge(scene: &Scene, seen: &Seen) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for (service, table, state, events, known, client) in [
        ("users", "users", "name", "user_events", &seen.users, scene.users()),
        ("orders", "orders", "status", "order_events", &seen.orders, scene.orders()),
    ] {
        let mut database = scene.database_of(service).await?;
        let key = if service == "users" { "user_id" } else { "order_id" };
        let statement = format!(
            "select t.id::text, t.{state}, t.version, (select count(*) from {events} e where e.{key} = t.id) from {table} t"
        );
        let rows: Vec<(String, String, i64, i64)> =
            sqlx::query_as(sqlx::AssertSqlSafe(statement)).fetch_all(&mut database).await?;
        let mut events = 0;
        let mut there = HashMap::new();
        for (id, state, version, logged) in rows {
            events += logged;
            // A sound log has one event for each version.
            verdict.lost += (version - logged).max(0).unsigned_abs();
            verdict.doubled += (logged - version).max(0).unsigned_abs();
            there.insert(id, Known { version, state });
        }
        verdict.acknowledged += known.values().map(|known| known.version.unsigned_abs()).sum::<u64>();
        verdict.lost += known.iter().filter(|(id, known)| there.get(*id) != Some(known)).count() as u64;
        verdict.invented += there.keys().filter(|id| !known.contains_key(*id)).count() as u64;
        check_feed(&client, events).await?;
    }
    // A request that failed may have been committed.
    verdict.invented = verdict.invented.saturating_sub(seen.failed);
    verdict.stale = stale(scene).await?;
    Ok(verdict)
}

/// Reads a whole feed, which must have as many events as the log. The versions of an aggregate must grow.
async fn check_feed(client: &Client, expected: i64) -> Result<()> {
    let mut versions: HashMap<String, i64> = HashMap::new();
    let (mut path, mut count) = ("/events?limit=1000".to_owned(), 0);
    loop {
        let answer = client.get(&path).send().await?;
        ensure!(answer.status == 200, "{}", answer.text());
        path = answer.header("link").split(['<', '>']).nth(1).context("a link")?.to_owned();
        let events: Vec<Value> = serde_json::from_slice(&answer.body)?;
        if events.is_empty() {
            break;
        }
        for event in events {
            let (subject, version) =
                event["id"].as_str().and_then(|id| id.rsplit_once('/')).context("an id of two parts")?;
            let version: i64 = version.parse()?;
            let before = versions.insert(subject.to_owned(), version).unwrap_or(0);
            ensure!(version > before, "the feed has version {version} of {subject} after {before}");
            count += 1;
        }
    }
    ensure!(count == expected, "the feed has {count} events, the log {expected}");
    Ok(())
}

/// Counts the differing rows of the replicas, after up to 20 s: the last events may still be on their way.
async fn stale(scene: &Scene) -> Result<u64> {
    let (mut users, mut orders) = (scene.database_of("users").await?, scene.database_of("orders").await?);
    let mut different = 0;
    for _ in 0..100 {
        let published = versions(&mut users, "select id::text, version from users").await?;
        let replica = versions(&mut orders, "select id::text, version from customers_replica").await?;
        let open = "select id::text, version from orders where status in ('placed', 'paid', 'shipped')";
        let open = versions(&mut orders, open).await?;
        let known = "select order_id::text, version from open_orders_replica where is_open";
        let known = versions(&mut users, known).await?;
        different = published.symmetric_difference(&replica).count() + open.symmetric_difference(&known).count();
        if different == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    Ok(different as u64)
}

async fn versions(connection: &mut PgConnection, select: &'static str) -> Result<HashSet<(String, i64)>> {
    Ok(sqlx::query_as(select).fetch_all(connection).await?.into_iter().collect())
}
