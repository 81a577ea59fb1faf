//! Events by a broker, from a log of one service into the tables of the other: what every transport promises.

use std::sync::Mutex;
use std::time::Duration;

use chassis::events::consumer::{Cursor, Inbox, Received};
use chassis::events::{Broker, publish};
use chassis::remote::Limits;
use dev::http::Client;
use dev::postgres::USERS_ROLE;
use orders::customers::{Customers, Users};
use serde_json::{Value, json};
use shared_db::Database;
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use users::open_orders::OpenOrders;
use uuid::Uuid;

use crate::killed::Program;
use crate::moves::{self, Move};
use crate::support::{Service, id, settings};

/// Runs the relay of users until the task is aborted.
fn relay_users(app: &users::App, broker: &impl Broker) -> JoinHandle<()> {
    let (app, brokers) = (app.clone(), [broker.clone()]);
    tokio::spawn(async move { match publish(&app, &brokers).await {} })
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

/// `variables` tell the program of orders where the broker is that `broker` is a client of.
pub async fn killed_at_any_point_relay_and_consumer_lose_nothing_and_do_nothing_twice(
    broker: impl Broker,
    variables: &[(&str, String)],
) {
    const USERS: usize = 40;
    let service = Service::start().await;
    // Users reads a replica that nothing updates, so it deactivates any user. The events alone must cancel the orders.
    service.execute(include_str!("../../../../migrations/replicas/open_orders.replace.sql")).await;
    let app = users::App::new(
        Database::new(&service.database.url_as(USERS_ROLE), &settings(10)).expect("a URL"),
        OpenOrders::local(),
    );
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let users_url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(chassis::http::serve::serve(listener, users::router(app.clone()), std::future::pending(), || {}));
    let users = Client::router(users::router(app.clone()));

    let folder = tempfile::tempdir().expect("a folder");
    let mut relay = relay_users(&app, &broker);
    let mut consumer = Program::start(&folder, &service, &users_url, variables);
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
                relay = relay_users(&app, &broker);
            }
            7 => {
                // Anywhere: while it starts, joins, stores, cancels. Not a wait for anything.
                tokio::time::sleep(Duration::from_millis((n as u64 * 97) % 700)).await;
                consumer.kill();
                consumer = Program::start(&folder, &service, &users_url, variables);
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

/// An inbox in memory.
#[derive(Default)]
struct Seen {
    ids: Mutex<Vec<String>>,
    cursor: Mutex<Option<String>>,
}

impl Inbox for Seen {
    type Error = std::convert::Infallible;

    async fn cursor(&self, _: &str) -> Result<Option<String>, Self::Error> {
        Ok(self.cursor.lock().expect("whole").clone())
    }

    async fn apply(&self, events: &[Received], cursor: Option<Cursor<'_>>) -> Result<(), Self::Error> {
        self.ids.lock().expect("whole").extend(events.iter().map(|event| event.id.clone()));
        if let Some(Cursor { value, .. }) = cursor {
            *self.cursor.lock().expect("whole") = Some(value.to_owned());
        }
        Ok(())
    }

    async fn refill(&self) -> Result<(), Self::Error> {
        Ok(())
    }
}

pub async fn what_is_announced_while_the_tables_move_to_and_fro_all_arrives_in_order(broker: impl Broker) {
    let mut moved = Move::begin().await;
    let user = Uuid::now_v7();
    let row = format!("insert into customers_replica values ('{user}', 'Ada', 'active', 1)");
    moves::execute(&mut moved.owner(moved.side).await, &row).await;
    let users = Users::http(&"http://127.0.0.1:1".parse().expect("a URL"), Limits::default());
    let app = orders::App::new(moved.database("orders", 5), Customers::local(users));
    let client = Client::router(orders::router(app.clone()));
    let seen = Seen::default();
    let story = async {
        let mut placed = Vec::new();
        for _ in 0..4 {
            for _ in 0..10 {
                let item = json!({ "sku": "tea", "quantity": 2, "unit_price_minor": 350 });
                let order = json!({ "user_id": user, "currency": "EUR", "items": [item] });
                let order = client.post("/orders").json(&order).await.expect(201).json();
                client.post(format!("/orders/{}/pay", id(&order))).await.expect(200);
                placed.push(id(&order).to_owned());
            }
            // The relay follows the tables, and its cursor is in them.
            moved.switch("").await;
        }
        let all = |seen: &[String]| {
            placed.iter().all(|order| [1, 2].iter().all(|version| seen.contains(&format!("{order}/{version}"))))
        };
        dev::wait::until("every event arrives", async || all(&seen.ids.lock().expect("whole"))).await;
        placed
    };
    let placed = tokio::select! {
        never = orders::events::publish(app.clone(), vec![broker.clone()]) => match never {},
        never = broker.consume("by-stander", "orders", &seen) => match never {},
        placed = story => placed,
    };
    let seen = seen.ids.lock().expect("whole").clone();
    for order in placed {
        let first = |version: u8| seen.iter().position(|id| *id == format!("{order}/{version}"));
        assert!(first(1) < first(2), "{order} was paid before it was placed");
    }
}
