//! The service while its tables move: not one request fails, and nothing is done twice or lost.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::remote::Limits;
use dev::http::{Answer, Client};
use dev::postgres::ORDERS_ROLE;
use orders::customers::{Customers, Users};
use orders::{App, router};
use serde_json::{Value, json};
use shared_db::{Database, Settings, Side, run, stay_warm, warm_up};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use moves::{Move, execute, number, until};

#[path = "../../../shared-db/tests/moves/mod.rs"]
mod moves;

const SWITCHES: usize = 12;
const WRITERS: usize = 6;
const READERS: usize = 4;
/// Orders placed between two switches.
const ORDERS: usize = 40;

/// The service on this database. Users is not there, and is not asked.
fn client(database: Database) -> Client {
    let users = Users::http(&"http://127.0.0.1:1".parse().expect("a URL"), Limits::default());
    Client::router(router(App::new(database, Customers::local(users))))
}

/// A user whose name is the number of the switches that there have been.
async fn add_user(moved: &Move) -> Uuid {
    let id = Uuid::now_v7();
    let row = format!("insert into customers_replica values ('{id}', '0', 'active', 1)");
    execute(&mut moved.owner(moved.side).await, &row).await;
    id
}

/// On which life of the tables an order was seen.
#[track_caller]
fn generation(order: &Value) -> i64 {
    let name = order["customer"]["name"].as_str().unwrap_or_else(|| panic!("no customer: {order}"));
    name.parse().expect("a number")
}

fn id(order: &Value) -> Uuid {
    order["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
}

/// What is known of the writes that have been acknowledged.
struct Story {
    user: Uuid,
    acknowledged: Mutex<Vec<Uuid>>,
    count: watch::Sender<usize>,
    /// The newest life of the tables that a write was acknowledged in.
    newest: AtomicI64,
    over: AtomicBool,
}

impl Story {
    fn new(user: Uuid) -> Self {
        Self {
            user,
            acknowledged: Mutex::default(),
            count: watch::Sender::new(0),
            newest: AtomicI64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Places orders and pays them, until it is over.
    async fn write(&self, client: Client) {
        while !self.is_over() {
            let before = self.newest();
            let key = Uuid::now_v7().to_string();
            let item = json!({ "sku": "tea", "quantity": 2, "unit_price_minor": 350 });
            let order = json!({ "user_id": self.user, "currency": "EUR", "items": [item] });
            let answer = client.post("/orders").header("idempotency-key", &key).json(&order).await.expect(201);
            assert!(answer.headers.get("idempotency-replayed").is_none(), "it was placed twice");
            let placed = answer.json();
            assert!(generation(&placed) >= before, "{before}: written where the tables had been left: {placed}");
            self.newest.fetch_max(generation(&placed), Ordering::SeqCst);
            let paid = client.post(format!("/orders/{}/pay", id(&placed))).await.expect(200).json();
            assert_eq!(paid["version"], 2);
            self.acknowledged.lock().expect("nobody panicked").push(id(&placed));
            self.count.send_modify(|count| *count += 1);
        }
    }

    /// Reads what was acknowledged last, until it is over.
    async fn read(&self, client: Client) {
        while !self.is_over() {
            let before = self.newest();
            let last = self.acknowledged.lock().expect("nobody panicked").last().copied();
            if let Some(last) = last {
                let order = client.get(format!("/orders/{last}")).await.expect(200).json();
                assert!(generation(&order) >= before, "{before}: read where the tables had been left: {order}");
                assert_eq!(order["status"], "paid");
            }
            let before = self.newest();
            let page = client.get("/orders?limit=3").await.expect(200).json();
            for order in page["items"].as_array().expect("items") {
                assert!(generation(order) >= before, "{before}: listed where the tables had been left: {order}");
            }
            client.get(format!("/open-orders?user_id={}", self.user)).await.expect(200);
        }
    }

    /// Follows the feed until it has told all that was acknowledged, when `all` has been.
    async fn follow(&self, client: Client, all: &AtomicBool) -> Vec<String> {
        let mut told = Vec::new();
        let mut path = "/events?limit=100&wait=1".to_owned();
        while !all.load(Ordering::SeqCst) || told.len() < 2 * *self.count.borrow() {
            let answer = client.get(&path).await.expect(200);
            let events = answer.json();
            told.extend(
                events.as_array().expect("events").iter().map(|event| event["id"].as_str().expect("an id").to_owned()),
            );
            path = next(&answer);
        }
        told
    }
}

fn next(answer: &Answer) -> String {
    let link = answer.header("link");
    link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a link").0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_and_no_write_is_lost_or_done_twice_while_the_tables_move_to_and_fro() {
    let mut moved = Move::begin().await;
    let story = Arc::new(Story::new(add_user(&moved).await));
    let processes = [moved.database("orders", 5), moved.database("orders", 5)];
    let clients = processes.clone().map(client);
    let warm = processes.map(|database| tokio::spawn(stay_warm(database)));
    let mut tasks = JoinSet::new();
    for n in 0..WRITERS {
        let (story, client) = (story.clone(), clients[n % 2].clone());
        tasks.spawn(async move { story.write(client).await });
    }
    for n in 0..READERS {
        let (story, client) = (story.clone(), clients[n % 2].clone());
        tasks.spawn(async move { story.read(client).await });
    }
    let all_acknowledged = Arc::new(AtomicBool::new(false));
    let follower = tokio::spawn({
        let (story, client, all) = (story.clone(), clients[0].clone(), all_acknowledged.clone());
        async move { story.follow(client, &all).await }
    });

    let mut count = story.count.subscribe();
    for switch in 1..=SWITCHES {
        let enough = *story.count.borrow() + ORDERS;
        tokio::select! {
            reached = count.wait_for(|count| *count >= enough) => drop(reached.expect("they write")),
            // None ends before it is told to, but by a failure.
            ended = tasks.join_next() => ended.expect("a task").expect("no request fails"),
        }
        moved.switch(&format!("update customers_replica set name = '{switch}', version = version + 1")).await;
    }
    story.over.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no request fails");
    }
    all_acknowledged.store(true, Ordering::SeqCst);
    let told = follower.await.expect("no request fails");
    warm.iter().for_each(tokio::task::JoinHandle::abort);

    let acknowledged = story.acknowledged.lock().expect("nobody panicked").clone();
    assert!(acknowledged.len() >= SWITCHES * ORDERS);
    let all: HashSet<String> = acknowledged.iter().flat_map(|id| [format!("{id}/1"), format!("{id}/2")]).collect();
    assert_eq!(told.len(), all.len(), "the feed tells each event once");
    assert_eq!(HashSet::from_iter(told), all);
    // Both sides: what one has and the other not, `switch` would have found.
    for _ in 0..2 {
        let mut owner = moved.owner(moved.side).await;
        let stored = acknowledged.len() as i64;
        assert_eq!(number(&mut owner, "select count(*) from orders where status = 'paid' and version = 2").await, stored);
        assert_eq!(number(&mut owner, "select count(*) from orders").await, stored);
        assert_eq!(number(&mut owner, "select count(*) from order_items").await, stored);
        assert_eq!(number(&mut owner, "select count(*) from order_events").await, 2 * stored);
        moved.switch("").await;
    }
}

/// What the session of a connection is, and how many of its statements were prepared after `since`. It prepares nothing, and
/// takes a while, so that all connections are looked at when as many looks run at once.
async fn look(connection: &mut PgConnection, since: &str) -> Result<(i32, i64), sqlx::Error> {
    let look = format!(
        "select pg_backend_pid(), (select count(*) from pg_prepared_statements where prepare_time > '{since}')
         from pg_sleep(0.3)"
    );
    let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(look))).await?;
    Ok((row.get(0), row.get(1)))
}

const CONNECTIONS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_switch_requests_run_on_connections_that_were_open_before_and_prepare_nothing() {
    let mut moved = Move::begin().await;
    let user = add_user(&moved).await;
    let database = moved.database("prepared", CONNECTIONS);
    let client = client(database.clone());
    let requests = async || {
        let item = json!({ "sku": "tea", "quantity": 2, "unit_price_minor": 350 });
        let order = json!({ "user_id": user, "currency": "EUR", "items": [item] });
        let key = Uuid::now_v7().to_string();
        let placed = client.post("/orders").header("idempotency-key", &key).json(&order).await.expect(201).json();
        client.post(format!("/orders/{}/pay", id(&placed))).await.expect(200);
        let open = format!("/open-orders?user_id={user}");
        for path in [&format!("/orders/{}", id(&placed)), "/orders?limit=3", &open, "/events?limit=3"] {
            client.get(path).await.expect(200);
        }
    };
    requests().await;
    for _ in 0..2 {
        let _kept = warm_up(&database).await.expect("it is known where the tables are");
        let mut owner = moved.owner(moved.side).await;
        let since: String =
            sqlx::query_scalar("select clock_timestamp()::text").fetch_one(&mut owner).await.expect("a time");
        moved.switch("").await;
        requests().await;
        requests().await;
        let looks = (0..CONNECTIONS).map(|_| {
            let (database, since) = (database.clone(), since.clone());
            tokio::spawn(async move { run!(database, connection => look(connection, &since)).await })
        });
        let mut sessions = HashSet::new();
        for look in looks.collect::<Vec<_>>() {
            let (session, prepared) = look.await.expect("it ends").expect("answered");
            assert_eq!(prepared, 0, "statements that were prepared after the switch to the {:?}", moved.side);
            let opened =
                format!("select count(*) from pg_stat_activity where pid = {session} and backend_start < '{since}'");
            assert_eq!(number(&mut owner, &opened).await, 1, "session {session} was open before the switch");
            sessions.insert(session);
        }
        assert_eq!(sessions.len(), CONNECTIONS);
    }
}

/// `orders rebuild` finds them, too.
#[tokio::test]
async fn a_command_works_where_the_tables_are() {
    let mut moved = Move::begin().await;
    moved.switch("").await;
    let mut owner = moved.owner(Side::Target).await;
    let order = "'00000000-0000-7000-8000-000000000000', gen_random_uuid(), 'delivered', 'EUR', 0, now(), now(), 1";
    execute(&mut owner, &format!("insert into orders values ({order})")).await;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_orders"))
        .args(["rebuild", "--check", "--format", "json"])
        .env("ORDERS_DATABASE_URL", moved.source.url_as(ORDERS_ROLE))
        .env("ORDERS_DATABASE_NEXT_URL", moved.target.url_as(ORDERS_ROLE))
        .current_dir(std::env::temp_dir())
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains(r#"{"orders":1,"different":1,"repaired":0}"#),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_right_that_is_missing_without_a_move_is_told_as_503() {
    let moved = Move::begin().await;
    let client = client(moved.database("orders", 2));
    client.get("/orders").await.expect(200);
    moved.close(Side::Source).await;
    let problem = client.get("/orders").await.problem(503, "");
    assert!(!problem.to_string().contains("permission"), "{problem}");
    moved.open(Side::Source).await;
    client.get("/orders").await.expect(200);
}

#[tokio::test]
async fn readiness_and_metrics_speak_of_the_side_in_use() {
    let mut moved = Move::begin().await;
    add_user(&moved).await;
    let client = client(moved.database("orders", 2));
    client.get("/health/ready").await.expect(200);
    assert!(client.get("/metrics").await.expect(200).text().lines().any(|line| line == "db_on_target 0"));
    moved.switch("").await;
    client.get("/orders").await.expect(200);
    let metrics = client.get("/metrics").await.expect(200).text();
    for line in ["db_on_target 1", "db_switch_generation 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    execute(&mut moved.owner(Side::Source).await, "drop table _sqlx_migrations").await;
    client.get("/health/ready").await.expect(200);
    execute(&mut moved.owner(Side::Target).await, "update _sqlx_migrations set success = false").await;
    client.get("/health/ready").await.problem(503, "");
    // Its connections are where it is.
    let mut owner = moved.owner(Side::Source).await;
    until(
        &mut owner,
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'orders'",
        0,
    )
    .await;
}

/// With the times of production. The pool has two places for writes, so most of them wait for a place.
#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_a_switch_and_not_as_long_for_a_locked_row() {
    let mut moved = Move::begin().await;
    let user = add_user(&moved).await;
    let client = client(moved.database_with(&Settings::new("orders", 4)));
    let order =
        json!({ "user_id": user, "currency": "EUR", "items": [{ "sku": "tea", "quantity": 1, "unit_price_minor": 1 }] });
    let place = || tokio::spawn(client.post("/orders").json(&order).into_future());
    let placed = place().await.expect("an answer").expect(201).json();
    let mut owner = moved.owner(Side::Source).await;
    execute(&mut owner, &format!("begin; select from orders where id = '{}' for update", id(&placed))).await;
    let begun = Instant::now();
    let refused = client.post(format!("/orders/{}/pay", id(&placed))).await;
    let waited = begun.elapsed();
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "");
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    execute(&mut owner, "rollback").await;
    // Twice as long as a write waits for a lock, and many times as long as it waits for a place.
    execute(&mut owner, "begin; lock table orders, order_items, order_events in share row exclusive mode").await;
    let waiting: Vec<_> = (0..12).map(|_| place()).collect();
    until(&mut moved.owner(Side::Source).await, BLOCKED, 1).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "nobody has been refused");
    client.get("/orders").await.expect(200);
    execute(&mut owner, "rollback").await;
    for waiting in waiting {
        waiting.await.expect("an answer").expect(201);
    }
    moved.switch("").await;
    place().await.expect("an answer").expect(201);
}

const BLOCKED: &str = "select least(count(*), 1) from pg_stat_activity
                       where datname = current_database() and application_name = 'orders' and wait_event_type = 'Lock'";
