//! What every test begins with.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use dev::http::{Answer, Call, Client};
use dev::postgres::{ORDERS_ROLE, TestDatabase};
use orders::{App, router};
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use sqlx::{AssertSqlSafe, Decode, Executor, PgConnection, Postgres, Row, Type};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::dial;

#[path = "../../../chassis/tests/contract/mod.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod contract;

/// What the service promises of its events. Every event that a test receives is compared with it.
pub static CONTRACT: LazyLock<contract::Contract> =
    LazyLock::new(|| contract::Contract::read(concat!(env!("CARGO_MANIFEST_DIR"), "/contract")));

/// The service, its database, and a user who may order.
pub struct Service {
    pub client: Client,
    pub database: TestDatabase,
    pub user: Uuid,
}

impl Service {
    /// A new service without orders.
    pub async fn start() -> Self {
        let database = dial::database().await;
        let client = client(&database.url_as(ORDERS_ROLE), &settings(10));
        let service = Self { client, database, user: Uuid::now_v7() };
        service.add_user(service.user, "Ada").await;
        service
    }

    /// Another process of the same service, on the same database.
    pub fn second_instance(&self) -> Client {
        client(&self.database.url_as(ORDERS_ROLE), &settings(10))
    }

    /// Adds a user as the users service would, or the news of one.
    pub async fn add_user(&self, id: Uuid, name: &str) {
        let row = match dial::USERS {
            "users" => format!("('{id}', '{id}@example.org', '{name}', 'active', now(), now(), 1)"),
            _replica => format!("('{id}', '{name}', 'active', 1)"),
        };
        self.execute(&format!("insert into {} values {row}", dial::USERS)).await;
    }

    /// Sets a user's status as the users service would.
    pub async fn set_user_status(&self, id: Uuid, status: &str) {
        self.update_user(id, &format!("status = '{status}'")).await;
    }

    /// Gives a user another name, as the users service would.
    pub async fn rename_user(&self, id: Uuid, name: &str) {
        self.update_user(id, &format!("name = '{name}'")).await;
    }

    async fn update_user(&self, id: Uuid, change: &str) {
        self.execute(&format!("update {} set {change}, version = version + 1 where id = '{id}'", dial::USERS)).await;
    }

    /// Runs statements as the owner of the schema.
    pub async fn execute(&self, statements: &str) {
        execute(&mut self.database.owner().await, statements).await;
    }

    /// How many orders, lines and events there are.
    pub async fn rows(&self) -> [i64; 3] {
        let mut owner = self.database.owner().await;
        [
            value(&mut owner, "select count(*) from orders").await,
            value(&mut owner, "select count(*) from order_items").await,
            value(&mut owner, "select count(*) from order_events").await,
        ]
    }

    /// Waits until a session of `application` waits for a lock, as what runs in `task` should make it.
    pub async fn until_blocked<T>(&self, application: &str, task: &JoinHandle<T>) {
        let blocked = format!("application_name = '{application}' and wait_event_type = 'Lock'");
        // A connection of its own: within a transaction, the sessions are seen as they were at the first look.
        let mut owner = self.database.owner().await;
        while sessions(&mut owner, &blocked).await == 0 {
            assert!(!task.is_finished(), "it did not wait");
        }
    }

    /// A request for one item for the service's user.
    pub fn order(&self) -> Value {
        self.order_of(self.user)
    }

    /// A request for one item.
    pub fn order_of(&self, user: Uuid) -> Value {
        json!({
            "user_id": user,
            "currency": "EUR",
            "items": [{ "sku": "tea", "quantity": 2, "unit_price_minor": 350 }],
        })
    }

    /// Places the service's user's order.
    pub async fn place(&self) -> Value {
        self.place_for(self.user).await
    }

    /// Places an order.
    pub async fn place_for(&self, user: Uuid) -> Value {
        self.client.post("/orders").json(&self.order_of(user)).await.expect(201).json()
    }

    /// Places an order and takes these steps: `pay`, `ship` …
    pub async fn place_and(&self, steps: &[&str]) -> Value {
        let mut order = self.place().await;
        for step in steps {
            order = self.step(id(&order), step).await;
        }
        order
    }

    /// Takes a step with an order.
    pub async fn step(&self, id: &str, step: &str) -> Value {
        self.client.post(format!("/orders/{id}/{step}")).await.expect(200).json()
    }

    /// The order as it is now.
    pub async fn read(&self, id: &str) -> Value {
        self.client.get(format!("/orders/{id}")).await.expect(200).json()
    }

    /// The order's history: all of it.
    pub async fn history(&self, id: &str) -> Vec<Value> {
        let events = pages(&self.client, &format!("/orders/{id}/events")).await;
        CONTRACT.check(&events);
        events
    }
}

/// The usual settings, but with patience for a machine that has much else to do.
pub fn settings(max_connections: usize) -> Settings {
    Settings::new("orders", max_connections).with_patience(Duration::from_secs(40))
}

/// The service on the database at `url`.
pub fn client(url: &str, settings: &Settings) -> Client {
    Client::router(router(app(url, settings)))
}

/// The state of the service on the database at `url`, its port to users as this test program has it.
pub fn app(url: &str, settings: &Settings) -> App {
    App::new(Database::new(url, settings).expect("a URL"), dial::customers(url))
}

/// Runs statements: how many rows the last one changed.
pub async fn execute(connection: &mut PgConnection, statements: &str) -> u64 {
    try_execute(connection, statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"))
}

/// Runs statements that may be refused.
pub async fn try_execute(connection: &mut PgConnection, statements: &str) -> Result<u64, sqlx::Error> {
    Ok(connection.execute(AssertSqlSafe(statements.to_owned())).await?.rows_affected())
}

/// The value of a query.
pub async fn value<T>(connection: &mut PgConnection, query: &str) -> T
where
    T: for<'row> Decode<'row, Postgres> + Type<Postgres>,
{
    let row = connection.fetch_one(AssertSqlSafe(query.to_owned())).await;
    row.unwrap_or_else(|error| panic!("{query}: {error}")).get(0)
}

/// How many sessions of this database are such.
pub async fn sessions(connection: &mut PgConnection, such: &str) -> i64 {
    value(connection, &format!("select count(*) from pg_stat_activity where datname = current_database() and {such}")).await
}

/// The id of what was answered.
pub fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// The ids of these, in their order.
pub fn ids(values: &[Value]) -> Vec<&str> {
    values.iter().map(id).collect()
}

/// A time as the services write it: RFC 3339, UTC.
pub fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().expect("a time");
    assert!(text.ends_with('Z'), "{text} is not UTC");
    DateTime::parse_from_rfc3339(text).expect("RFC 3339").to_utc()
}

/// Where the `Link` header leads, if there is one.
pub fn next(answer: &Answer) -> Option<String> {
    answer.headers.get("link")?;
    let link = answer.header("link");
    let path = link.strip_prefix('<').and_then(|link| link.strip_suffix(r#">; rel="next""#));
    Some(path.unwrap_or_else(|| panic!("a link to the next page: {link}")).to_owned())
}

/// The items of all pages of the list that starts at `path`.
pub async fn pages(client: &Client, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(page) = path {
        let answer = client.get(page).await.expect(200);
        let body = answer.json();
        items.extend(body["items"].as_array().expect("items").clone());
        path = next(&answer);
        // The two ways to go on agree.
        match (&path, body["next_cursor"].as_str()) {
            (Some(path), Some(cursor)) => assert!(path.ends_with(&format!("cursor={cursor}")), "{path} and {cursor}"),
            (path, cursor) => assert_eq!((path.as_deref(), cursor), (None, None)),
        }
    }
    items
}

/// Follows the feed from `path` until `count` events have come, and says where it goes on. An event may be withheld for a
/// while, since any transaction in the whole server holds it back, for example the creation of another test's database: so
/// `path` should wait.
pub async fn follow(client: &Client, path: &str, count: usize) -> (Vec<Value>, String) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut events = Vec::new();
    let mut path = path.to_owned();
    while events.len() < count {
        let answer = client.get(&path).await.expect(200);
        let batch = answer.json();
        let batch = batch.as_array().expect("a batch");
        let may_wait = Instant::now() < deadline;
        assert!(!batch.is_empty() || may_wait, "only {} of {count} events came", events.len());
        // Some tests append events of a type of their own.
        CONTRACT.check(batch.iter().filter(|event| event["type"] != "late"));
        events.extend(batch.iter().cloned());
        path = next(&answer).expect("the feed always says where to go on");
    }
    (events, path)
}

/// Sends all calls at once; the answers are in the calls' order.
pub async fn at_once(calls: impl IntoIterator<Item = Call>) -> Vec<Answer> {
    let calls: Vec<_> = calls.into_iter().map(|call| tokio::spawn(call.into_future())).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("an answer"));
    }
    answers
}
