//! Events by a broker, from the log of users into the tables of orders, with the real program of orders.

#[path = "http/dial.rs"]
mod dial;
#[expect(dead_code, reason = "shared with the suites through HTTP, which use all of it")]
#[path = "http/support.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use broker::kafka::{self, MockCluster};
use chassis::events::{Brokers, publish};
use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, USERS_ROLE};
use serde_json::{Value, json};
use shared_db::Database;
use sqlx::{AssertSqlSafe, Executor, Row};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use users::open_orders::OpenOrders;

use support::{Service, id, settings};

/// Runs the relay of users until the task is aborted.
fn relay_users(app: &users::App, brokers: &Brokers) -> JoinHandle<()> {
    let (app, cluster) = (app.clone(), kafka::Cluster::new(brokers.clone()));
    tokio::spawn(async move { match publish(&app, &cluster).await {} })
}

/// The program of orders, killed at the end of the test.
struct Program(Child);

impl Program {
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Starts the program in a folder of its own; it reads events from the broker.
fn program(folder: &TempDir, service: &Service, users: &str, brokers: &Brokers) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().current_dir(folder.path());
    command.env("ORDERS_DATABASE_URL", service.database.url_as(ORDERS_ROLE)).env("ORDERS_ADDR", "127.0.0.1:0");
    command.env("EVENTS_VIA", "kafka").env("KAFKA_BROKERS", brokers.to_string()).env("USERS_URL", users);
    command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Program(command.spawn().expect("the program starts"))
}

async fn holds(service: &Service, query: &str) -> bool {
    let row = service.database.owner().await.fetch_one(AssertSqlSafe(query.to_owned())).await;
    row.unwrap_or_else(|error| panic!("{query}: {error}")).get(0)
}

/// Waits until the owner gets `true` as the answer.
async fn until(service: &Service, query: &str) {
    dev::wait::until(query, async || holds(service, query).await).await;
}

/// As the replica is once every event has come.
const EQUAL: &str = "select not exists (
    select from users u full join customers_replica r using (id)
    where (u.name, u.status, u.version) is distinct from (r.name, r.status, r.version))";

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_relay_and_consumer_lose_nothing_and_do_nothing_twice() {
    const USERS: usize = 40;
    let service = Service::start().await;
    // Users reads a replica that nothing updates, so it deactivates any user. The events alone must cancel the orders.
    service.execute(include_str!("../../../migrations/replicas/open_orders.replace.sql")).await;
    let app = users::App::new(
        Database::new(&service.database.url_as(USERS_ROLE), &settings(10)).expect("a URL"),
        OpenOrders::local(),
    );
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let users_url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(chassis::http::serve::serve(listener, users::router(app.clone()), std::future::pending(), || {}));
    let users = Client::router(users::router(app.clone()));

    let cluster = MockCluster::start(&["users"]).expect("a cluster in this process");
    let brokers = cluster.brokers();
    let folder = tempfile::tempdir().expect("a folder");
    let mut relay = relay_users(&app, &brokers);
    let mut consumer = program(&folder, &service, &users_url, &brokers);
    until(&service, "select exists (select from orders_cursors)").await;

    let mut orders = Vec::new();
    for n in 0..USERS {
        let person = json!({ "email": format!("{n}@example.org"), "name": "Ada" });
        let user: Value = users.post("/users").json(&person).await.expect(201).json();
        let order = service.place_for(id(&user).parse().expect("an id")).await;
        let path = format!("/users/{}", id(&user));
        users.patch(&path).json(&json!({ "name": format!("Ada {n}") })).await.expect(200);
        if n % 2 == 0 {
            users.delete(&path).await.expect(204);
        }
        orders.push((id(&order).to_owned(), n % 2 == 0));
        match n % 8 {
            3 => {
                relay.abort();
                let _ = (&mut relay).await;
                relay = relay_users(&app, &brokers);
            }
            7 => {
                // Anywhere: while it starts, joins, stores, cancels. Not a wait for anything.
                tokio::time::sleep(Duration::from_millis((n as u64 * 97) % 700)).await;
                consumer.kill();
                consumer = program(&folder, &service, &users_url, &brokers);
            }
            _ => {}
        }
    }
    until(&service, EQUAL).await;
    until(
        &service,
        "select not exists (
        select from orders o join users u on u.id = o.user_id where u.status = 'deactivated' and o.status = 'placed')",
    )
    .await;
    consumer.kill();
    relay.abort();
    for (order, cancelled) in orders {
        let history = service.history(&order).await;
        let types: Vec<&str> = history.iter().map(|event| event["type"].as_str().expect("text")).collect();
        let expected = if cancelled { &["order.placed.v1", "order.cancelled.v1"][..] } else { &["order.placed.v1"] };
        assert_eq!(types, expected, "once, and not twice");
    }
    assert!(holds(&service, "select not exists (select from orders_parked_events)").await);
}
