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
use sqlx::Executor;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Clients that place orders at the same time.
const CLIENTS: usize = 16;

/// Starts the program on the database at `url`, and waits until it serves.
async fn start(url: &str) -> (Leashed, Client) {
    start_with(&[("ORDERS_DATABASE_URL", &with_role(url, ORDERS_ROLE))]).await
}

/// The same with these variables.
async fn start_with(variables: &[(&str, &str)]) -> (Leashed, Client) {
    let address = free_address().to_string();
    let folder = std::env::temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.current_dir(folder);
    command.envs(variables.iter().copied()).env("ORDERS_ADDR", &address).env("RUST_LOG", "error");
    // The clients of these tests wait for a busy machine.
    command.env("DATABASE_QUEUE_TIMEOUT", "20s");
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

/// A database whose role logs in with a password of its own, which stands in a file.
struct Rotated {
    cluster: Cluster,
    database: TestDatabase,
    file: tempfile::NamedTempFile,
}

impl Rotated {
    async fn new() -> Self {
        let cluster = Cluster::temporary().expect("a cluster");
        let database = TestDatabase::on(&cluster);
        let rotated = Self { cluster, database, file: tempfile::NamedTempFile::new().expect("a file") };
        rotated.alter("first").await;
        rotated.write("first");
        rotated
    }

    async fn alter(&self, password: &str) {
        // The test's clients may open as many connections as they like.
        let statement = format!("alter role {ORDERS_ROLE} login connection limit 250 password '{password}'");
        let mut owner = connect(self.database.url()).await.expect("a connection");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await.expect("altered");
    }

    /// Reads of orders take long in the database and no CPU. So each client keeps a connection busy, and none of them, nor
    /// a login, waits for the processor.
    async fn slow_down(&self) {
        let user = add_user(self.database.url()).await;
        let slow = format!(
            "insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
                 values (gen_random_uuid(), '{user}', 'placed', 'EUR', 700, now(), now(), 1);
             create or replace view customers as
                 select id, name, status, version from users where pg_sleep(0.2) is not null"
        );
        connect(self.database.url()).await.expect("a connection").execute(sqlx::AssertSqlSafe(slow)).await.expect("slow");
    }

    fn write(&self, password: &str) {
        let (_, name) = self.database.url().rsplit_once('/').expect("a database");
        let url = self.cluster.url_as(ORDERS_ROLE, name).replace(self.cluster.password(), password);
        std::fs::write(self.file.path(), format!("{url}\n")).expect("written");
    }

    async fn sessions_since(&self, moment: &str) -> i64 {
        let count =
            "select count(*) from pg_stat_activity where application_name = 'orders' and backend_start > $1::timestamptz";
        let mut owner = connect(self.database.url()).await.expect("a connection");
        sqlx::query_scalar(count).bind(moment).fetch_one(&mut owner).await.expect("a number")
    }

    async fn now(&self) -> String {
        let mut owner = connect(self.database.url()).await.expect("a connection");
        sqlx::query_scalar("select clock_timestamp()::text").fetch_one(&mut owner).await.expect("a time")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_rotated_under_load_without_a_failed_request() {
    let rotated = Rotated::new().await;
    rotated.slow_down().await;
    let path = rotated.file.path().to_str().expect("a path");
    let variables = [("ORDERS_DATABASE_URL_FILE", path), ("DATABASE_MAX_CONNECTIONS", "200")];
    let (_process, client) = start_with(&variables).await;
    until_ready(&client).await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    let begin = |clients: &mut JoinSet<()>| {
        let (client, over, answered) = (client.clone(), over.clone(), answered.clone());
        clients.spawn(async move {
            client.get("/orders?limit=1").await.expect(200);
            answered.fetch_add(1, Ordering::Relaxed);
            while !over.load(Ordering::Relaxed) {
                client.get("/orders?limit=1").await.expect(200);
            }
        });
    };
    (0..CLIENTS).for_each(|_| begin(&mut clients));
    // The database first, the file first, and a file that was too early: the password of before is valid again.
    for (altered, written) in [("second", "second"), ("third", "third"), ("third", "fourth"), ("fourth", "fifth")] {
        let begun = rotated.now().await;
        if altered == "third" {
            rotated.write(written);
            rotated.alter(altered).await;
        } else {
            rotated.alter(altered).await;
            if written != "fifth" {
                rotated.write(written);
            }
        }
        // One more client needs one more connection, so the service must log in.
        until("the service has logged in anew", async || {
            if answered.load(Ordering::Relaxed) == clients.len() {
                begin(&mut clients);
            }
            rotated.sessions_since(&begun).await > 0
        })
        .await;
    }
    over.store(true, Ordering::Relaxed);
    clients.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_unavailable_until_the_file_has_the_right_one() {
    let rotated = Rotated::new().await;
    rotated.write("wrong");
    let path = rotated.file.path().to_str().expect("a path");
    let (_process, client) = start_with(&[("ORDERS_DATABASE_URL_FILE", path)]).await;
    client.get("/orders").await.problem(503, "");
    client.get("/health/ready").await.problem(503, "");
    rotated.write("no URL");
    client.get("/orders").await.problem(503, "");
    rotated.write("first");
    until_ready(&client).await;
    client.get("/orders").await.expect(200);
}
