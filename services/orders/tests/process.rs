//! The real program: stopped, and its Postgres crashed, in the middle of work.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dev::http::{Answer, Client, Unanswered};
use dev::postgres::{Cluster, ORDERS_ROLE, TestDatabase, connect, with_role};
use dev::process::{Leashed, Signal, free_address};
use dev::wait::until;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Clients that place orders at the same time.
const CLIENTS: usize = 16;

/// Starts the program on the database at `url`, and waits until it serves.
async fn start(url: &str) -> (Leashed, Client) {
    let address = free_address().to_string();
    let folder = std::env::temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.current_dir(folder);
    command.env("ORDERS_DATABASE_URL", with_role(url, ORDERS_ROLE)).env("ORDERS_ADDR", &address).env("RUST_LOG", "error");
    let mut process = Leashed::start(&command, Signal::SIGTERM).expect("orders runs");
    let client = Client::at(address);
    until("orders answers", async || {
        assert_eq!(process.ended().expect("known"), None, "orders ended");
        client.get("/health/live").send().await.is_ok()
    })
    .await;
    (process, client)
}

async fn until_ready(client: &Client) {
    until("orders is ready", async || client.is_ready().await).await;
}

async fn add_user(url: &str) -> Uuid {
    let id = Uuid::now_v7();
    sqlx::query("insert into users values ($1, 'ada@example.org', 'Ada', 'active', now(), now(), 1)")
        .bind(id)
        .execute(&mut connect(url).await.expect("a connection"))
        .await
        .expect("a user");
    id
}

async fn placed_orders(url: &str) -> Vec<String> {
    sqlx::query_scalar("select id::text from orders order by id")
        .fetch_all(&mut connect(url).await.expect("a connection"))
        .await
        .expect("orders")
}

/// Clients that place orders until told to stop, or until nobody answers.
struct Load {
    clients: JoinSet<Vec<Result<Answer, Unanswered>>>,
    answered: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Load {
    fn start(client: &Client, user: Uuid) -> Self {
        let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, answered, over) = (client.clone(), answered.clone(), over.clone());
            clients.spawn(async move {
                let order = json!({
                    "user_id": user,
                    "currency": "EUR",
                    "items": [{ "sku": "tea", "quantity": 1, "unit_price_minor": 350 }],
                });
                let mut outcomes = Vec::new();
                while !over.load(Ordering::Relaxed) && !matches!(outcomes.last(), Some(Err(_))) {
                    outcomes.push(client.post("/orders").json(&order).send().await);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                outcomes
            });
        }
        Self { clients, answered, over }
    }

    /// Waits for this many more answers.
    async fn go_on(&self, answers: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + answers;
        while self.answered.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> Vec<Result<Answer, Unanswered>> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

fn ids(outcomes: &[Result<Answer, Unanswered>]) -> Vec<String> {
    let placed = outcomes.iter().flatten().filter(|answer| answer.status == 201);
    let mut ids: Vec<String> = placed.map(|answer| answer.json()["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_was_accepted_is_answered_when_the_service_is_told_to_stop() {
    let database = TestDatabase::create();
    let (process, client) = start(database.url()).await;
    until_ready(&client).await;
    let load = Load::start(&client, add_user(database.url()).await);
    load.go_on(200).await;
    let ended = tokio::task::spawn_blocking(|| process.stop()).await.expect("joined").expect("ended");
    assert_eq!(ended.code(), 0);
    // Nobody listens any more: each client ends at its first refusal.
    let outcomes = load.end().await;
    for outcome in &outcomes {
        match outcome {
            Ok(answer) => assert_eq!(answer.status, 201, "{}", answer.text()),
            // Not accepted: there was no connection to send it by.
            Err(Unanswered::Broken(reason)) => assert!(reason.contains("Connect"), "{reason}"),
            Err(late) => panic!("{late}"),
        }
    }
    assert_eq!(ids(&outcomes), placed_orders(database.url()).await, "an order for every answer, and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_costs_the_requests_in_flight_and_no_order_that_was_answered() {
    let mut cluster = Cluster::temporary().expect("a cluster");
    let database = TestDatabase::on(&cluster);
    let (process, client) = start(database.url()).await;
    until_ready(&client).await;
    let load = Load::start(&client, add_user(database.url()).await);
    for _ in 0..3 {
        load.go_on(200).await;
        cluster = tokio::task::spawn_blocking(move || {
            cluster.stop(true).expect("stopped");
            cluster.start_again().expect("started");
            cluster
        })
        .await
        .expect("joined");
        until_ready(&client).await;
    }
    load.go_on(200).await;
    let outcomes = load.end().await;
    let failed: Vec<&Answer> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().expect("the service itself goes on answering"))
        .filter(|answer| answer.status != 201)
        .collect();
    assert!(!failed.is_empty(), "nothing was in flight");
    for answer in failed {
        answer.clone().problem(503, "");
        assert_eq!(answer.header("retry-after"), "1");
    }
    let (answered, stored) = (ids(&outcomes), placed_orders(database.url()).await);
    let lost: Vec<_> = answered.iter().filter(|id| stored.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "answered 201, and missing: {lost:?}");
    // Old connections are gone at once, and not one by one at the price of a request each.
    for _ in 0..CLIENTS {
        client.get("/orders?limit=1").await.expect(200);
    }
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_waits_for_a_database_that_is_away_at_its_start() {
    let mut cluster = Cluster::temporary().expect("a cluster");
    let database = TestDatabase::on(&cluster);
    cluster.stop(false).expect("stopped");
    let (_process, client) = start(database.url()).await;
    client.get("/health/live").await.expect(200);
    let away = client.get("/health/ready").await;
    assert_eq!(away.header("retry-after"), "1");
    away.problem(503, "");
    client.get("/orders").await.problem(503, "");
    cluster.start_again().expect("started");
    until_ready(&client).await;
    client.get("/orders").await.expect(200);
}
