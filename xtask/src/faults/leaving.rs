//! A thousand clients a second that send a request and leave, beside others who stay.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dev::http::Client;
use serde_json::json;
use sqlx::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::inject::Note;
use super::scene::Scene;
use super::tally::Tally;

/// The clients of a second. A debug build serves fewer.
const CLIENTS: u32 = if cfg!(debug_assertions) { 100 } else { 1000 };
/// Those beside them whose answers are measured.
const OTHERS: usize = 4;
/// The pause of each after an answer.
const PAUSE: Duration = Duration::from_millis(5);
/// The medians of so many rounds are compared.
const ROUNDS: usize = 3;
/// How far two times may be apart for no other reason than the clock.
const NOISE: Duration = Duration::from_millis(1);

/// What the crowd does after it has sent its requests.
#[derive(Clone, Copy, PartialEq)]
enum Crowd {
    Away,
    /// It reads the answers.
    Stays,
    Leaves,
}

/// Compares the others' times beside clients that leave with those beside as many that stay: each request costs the same
/// work. And no connection to the database may be lost.
pub async fn leaving(scene: &Scene, seconds: Duration) -> Result<(Note, Tally)> {
    let (client, mut owner, mut tally) = (scene.users(), scene.owner().await?, Tally::default());
    let email = format!("staying.{}@example.org", Uuid::new_v4().simple());
    let user = client.post("/users").json(&json!({ "email": email, "name": "Staying" })).answered(201).await?;
    let path = format!("/users/{}", user["id"].as_str().context("an id")?);
    let (mut slowest, mut lost) = ([const { Vec::new() }; 3], 0);
    for _ in 0..ROUNDS {
        for (crowd, slowest) in [Crowd::Away, Crowd::Stays, Crowd::Leaves].into_iter().zip(&mut slowest) {
            let before = sessions(&mut owner).await?;
            let over = Arc::new(AtomicBool::new(false));
            let others: Vec<_> =
                (0..OTHERS).map(|_| tokio::spawn(ask(client.clone(), path.clone(), over.clone()))).collect();
            let crowd = come(scene.addresses[0], crowd, &path, seconds).await;
            over.store(true, Ordering::Relaxed);
            let mut times = Vec::new();
            for other in others {
                let (answered, counted) = other.await?;
                times.extend(answered);
                tally.merge(counted);
            }
            crowd?;
            slowest.push(percentile(times));
            lost += before.difference(&sessions(&mut owner).await?).count();
        }
    }
    Ok((judge(slowest.map(median), lost), tally))
}

fn judge([away, stay, leave]: [Duration; 3], lost: usize) -> Note {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let mut note = Note::text(format!(
        "99 % of the others within {:.1} ms; {:.1} ms beside {CLIENTS} clients a second that stay, {:.1} ms if they leave",
        milliseconds(away),
        milliseconds(stay),
        milliseconds(leave)
    ));
    // A debug build is for tests, on a machine that has much else to do.
    if !cfg!(debug_assertions) && leave > stay.mul_f64(1.1) + NOISE {
        note.harm.push(note.text.clone().unwrap_or_default());
    }
    if lost > 0 {
        note.harm.push(format!("{lost} connections to the database were lost"));
    }
    note
}

/// The processes of the server that serve users.
async fn sessions(owner: &mut PgConnection) -> Result<HashSet<i32>> {
    let pids = sqlx::query_scalar("select pid from pg_stat_activity where application_name = 'users'");
    Ok(pids.fetch_all(owner).await?.into_iter().collect())
}

/// Asks for a user again and again: how long each answer took.
async fn ask(client: Client, path: String, over: Arc<AtomicBool>) -> (Vec<Duration>, Tally) {
    let (mut times, mut tally) = (Vec::new(), Tally::default());
    while !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let answer = client.get(&path).send().await;
        let took = sent.elapsed();
        tally.note(&answer, answer.as_ref().is_ok_and(|answer| answer.status == 200), true, took);
        times.push(took);
        tokio::time::sleep(PAUSE).await;
    }
    (times, tally)
}

/// Has the crowd come for `seconds`, each client by a connection of its own. Every fourth one writes.
async fn come(address: SocketAddr, crowd: Crowd, path: &str, seconds: Duration) -> Result<()> {
    if crowd == Crowd::Away {
        tokio::time::sleep(seconds).await;
        return Ok(());
    }
    let (begun, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_secs(1) / CLIENTS));
    let mut clients = Vec::new();
    for number in 0_u64.. {
        ticks.tick().await;
        if begun.elapsed() >= seconds {
            break;
        }
        let request = if number.is_multiple_of(4) { registration() } else { format!("GET {path} HTTP/1.1\r\n\r\n") };
        let request = request.replacen("\r\n", "\r\nhost: users\r\nconnection: close\r\n", 1);
        clients.push(tokio::spawn(visit(address, request, crowd == Crowd::Leaves)));
    }
    for client in clients {
        client.await?;
    }
    Ok(())
}

fn registration() -> String {
    let body = json!({ "email": format!("visitor.{}@example.org", Uuid::new_v4().simple()), "name": "Visitor" }).to_string();
    format!("POST /users HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Sends a request. The service may refuse the client, who does not care.
async fn visit(address: SocketAddr, request: String, leaves: bool) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    if stream.write_all(request.as_bytes()).await.is_ok() && !leaves {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

fn percentile(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
