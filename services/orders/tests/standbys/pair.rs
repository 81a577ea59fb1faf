//! Two servers, and the service on them.

use std::time::Duration;

use clap::Parser;
use dev::http::{Answer, Call, Client};
use dev::postgres::{Cluster, ORDERS_ROLE, TestDatabase, connect, with_role};
use dev::wait::until;
use orders::{App, Config, router};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use uuid::Uuid;

/// A primary with its standby, and a database on both.
pub struct Pair {
    pub database: TestDatabase,
    pub standby: Cluster,
    pub primary: Cluster,
}

impl Pair {
    pub fn start() -> Self {
        let primary = Cluster::temporary().expect("a server");
        let database = TestDatabase::on(&primary);
        let standby = primary.standby().expect("a standby");
        Self { database, standby, primary }
    }

    /// A user who may order.
    pub async fn add_user(&self) -> Uuid {
        let id = Uuid::now_v7();
        let row = format!("insert into users values ('{id}', '{id}@example.org', 'Ada', 'active', now(), now(), 1)");
        execute(&mut self.database.owner().await, &row).await;
        id
    }

    /// The database on the standby, as its superuser.
    pub async fn on_standby(&self) -> PgConnection {
        connect(&self.standby.url(self.name())).await.expect("the standby answers")
    }

    /// The service. It finds its primary at `url`.
    pub fn service_at(&self, url: &str, max_lag: &str) -> Client {
        let read = with_role(&self.standby.url(self.name()), ORDERS_ROLE);
        let arguments = ["orders", "--orders-database-url", url, "--orders-database-read-url", &read];
        let config = Config::try_parse_from([&arguments[..], &["--read-max-lag", max_lag]].concat()).expect("options");
        let mut settings = config.settings().with_patience(Duration::from_secs(40));
        settings.standby_timeout = Duration::from_secs(1);
        let database = config.database(&settings).expect("URLs");
        let app = App::new(database, config.customers().expect("a port"));
        app.watch();
        Client::router(router(app))
    }

    /// The service on the primary and its standby.
    pub async fn service(&self, max_lag: &str) -> Client {
        let client = self.service_at(&self.database.url_as(ORDERS_ROLE), max_lag);
        self.until_read(&client, true).await;
        client
    }

    /// Waits until the service reads from the standby, or does not.
    pub async fn until_read(&self, client: &Client, expected: bool) {
        let (_, address) = self.standby.url("").rsplit_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("one");
        let gauge = format!("db_standby_readable{{host=\"{}\"}} {}", address.trim_end_matches('/'), u8::from(expected));
        until(&gauge, async || client.get("/metrics").await.text().contains(&gauge)).await;
    }

    pub fn name(&self) -> &str {
        self.database.url().rsplit_once('/').expect("a database").1
    }
}

pub async fn execute(connection: &mut PgConnection, statements: &str) {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// A request for an order.
pub fn place(client: &Client, user: Uuid) -> Call {
    let item = json!({ "sku": "tea", "quantity": 2, "unit_price_minor": 350 });
    client.post("/orders").json(&json!({ "user_id": user, "currency": "EUR", "items": [item] }))
}

/// The path of an order.
pub fn path(order: &Value) -> String {
    format!("/orders/{}", order["id"].as_str().expect("an id"))
}

/// What the answer to a change says of its place.
pub fn token(answer: &Answer) -> String {
    answer.header("read-after").to_owned()
}
