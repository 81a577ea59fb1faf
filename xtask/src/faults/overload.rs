//! Five times the load that a slow database bears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dev::http::Client;
use dev::process::free_address;
use dev::wait::within;
use serde_json::json;

use super::inject::Note;
use super::proxy::{Mode, Proxy};
use super::scene::Scene;
use super::tally::Tally;
use crate::services::SERVICES;

/// How late the database answers.
const LATE: Duration = Duration::from_millis(20);
/// The connections to it: so it bears a hundred requests a second, whatever the machine.
const CONNECTIONS: usize = 2;
/// Clients that find out what it bears.
const CLIENTS: usize = 8;
/// The highest 99th percentile of what succeeds.
const SOON: Duration = Duration::from_millis(500);

/// Sends five times what another process of users bears, for `seconds`.
pub async fn overload(scene: &mut Scene, seconds: Duration) -> Result<(Note, Tally)> {
    let seconds = seconds.max(Duration::from_secs(3));
    let slow = Proxy::start(scene.postgres()?, Mode::Late(LATE)).await?;
    let (service, address) = (SERVICES[0], free_address());
    let variables = [
        (service.address_variable, address.to_string()),
        (service.database_variable, scene.url_at(service, slow.address)?),
        ("DATABASE_MAX_CONNECTIONS", CONNECTIONS.to_string()),
    ];
    scene.spawn(service, None, &variables)?;
    let client = Client::at(address);
    within(Duration::from_secs(60), "it is ready", async || Ok::<_, anyhow::Error>(client.is_ready().await)).await?;
    let person = json!({ "email": format!("{address}@example.org").replace(':', "-"), "name": "Person" });
    let user = client.post("/users").json(&person).answered(201).await?;
    let path = format!("/users/{}", user["id"].as_str().context("an id")?);

    let best = at_most(&client, &path, seconds).await?;
    let over = Arc::new(AtomicBool::new(false));
    let ready = tokio::spawn(watch_readiness(client.clone(), over.clone()));
    let offered = 5.0 * best;
    let (begun, mut sent) = (Instant::now(), Vec::new());
    while begun.elapsed() < seconds {
        while (sent.len() as f64) < begun.elapsed().as_secs_f64() * offered {
            let call = client.get(&path);
            sent.push(tokio::spawn(async move {
                let sent = Instant::now();
                (call.send().await, sent.elapsed())
            }));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut tally, mut served) = (Tally::default(), Vec::new());
    for answer in sent {
        let (answer, took) = answer.await?;
        let is_done = answer.as_ref().is_ok_and(|answer| answer.status == 200);
        served.extend(is_done.then_some(took));
        tally.note(&answer, is_done, true, took);
    }
    over.store(true, Ordering::Relaxed);
    served.sort_unstable();
    let rate = served.len() as f64 / seconds.as_secs_f64();
    let slowest = served.get(served.len() * 99 / 100).copied().unwrap_or(seconds);
    Ok((judge(best, rate, slowest, ready.await?), tally))
}

fn judge(best: f64, rate: f64, slowest: Duration, unready: u64) -> Note {
    let milliseconds = slowest.as_millis();
    let mut note = Note::text(format!("{rate:.0} of at most {best:.0} a second, 99 % within {milliseconds} ms"));
    if rate < 0.8 * best {
        note.harm.push(format!("{rate:.0} a second succeed; without overload {best:.0}"));
    }
    if slowest > SOON {
        note.harm.push(format!("of what succeeds, 99 % take up to {milliseconds} ms"));
    }
    if unready > 0 {
        note.harm.push(format!("it was not ready {unready} times"));
    }
    note
}

/// How many requests a second the service bears: each client sends the next one when it has an answer.
async fn at_most(client: &Client, path: &str, seconds: Duration) -> Result<f64> {
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let (client, path) = (client.clone(), path.to_owned());
        tokio::spawn(async move {
            let mut served = 0_u64;
            while begun.elapsed() < seconds {
                served += u64::from(client.get(&path).send().await.is_ok_and(|answer| answer.status == 200));
            }
            served
        })
    });
    let mut served = 0;
    for client in clients.collect::<Vec<_>>() {
        served += client.await?;
    }
    ensure!(served > 0, "nothing is served by a slow database");
    Ok(served as f64 / begun.elapsed().as_secs_f64())
}

/// How often the service was not ready.
async fn watch_readiness(client: Client, over: Arc<AtomicBool>) -> u64 {
    let mut unready = 0;
    while !over.load(Ordering::Relaxed) {
        unready += u64::from(!client.is_ready().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unready
}
