//! What users makes of the events of orders, however they come.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use chassis::events::consumer::Feed;
use chassis::events::{NoBroker, Transport};
use dev::postgres::{TestDatabase, USERS_ROLE};
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use users::App;
use users::open_orders::OpenOrders;
use users::open_orders::replica::{self, follow};
use uuid::Uuid;

/// An orders service that publishes these events from its start, and has no orders in its lists.
type Events = Arc<Mutex<Vec<Value>>>;

async fn serve(events: Events) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(answer).with_state(events);
    tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}));
    address
}

async fn answer(State(events): State<Events>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    if uri.path() != "/events" {
        return Json(json!({ "items": [] })).into_response();
    }
    let after = query.split('&').find_map(|pair| pair.strip_prefix("after=at-")).map_or(Ok(0), str::parse::<usize>);
    let Ok(after) = after else { return StatusCode::BAD_REQUEST.into_response() };
    let batch: Vec<Value> = events.lock().expect("unpoisoned").iter().skip(after).take(3).cloned().collect();
    if batch.is_empty() && after > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let next = if query.contains("from=end") { 0 } else { after + batch.len() };
    let batch = if query.contains("from=end") { Vec::new() } else { batch };
    ([(header::LINK, format!("</events?after=at-{next}>; rel=\"next\""))], Json(batch)).into_response()
}

/// An order's event.
fn event(order: Uuid, version: i64, status: &str, user: Uuid) -> Value {
    let data = json!({ "id": order, "user_id": user, "status": status, "version": version, "currency": "EUR" });
    json!({ "id": format!("{order}/{version}"), "type": format!("order.{status}.v1"), "data": data })
}

struct Service {
    database: TestDatabase,
    events: Events,
    feed: Feed,
    consumer: JoinHandle<()>,
}

impl Service {
    async fn start() -> Self {
        let (database, events) = (TestDatabase::create(), Events::default());
        let feed = Feed::new("orders", &serve(events.clone()).await.into());
        let (app, followed) = (app(&database), feed.clone());
        let consumer = tokio::spawn(async move { match follow(app, followed, Transport::<NoBroker>::Feed).await {} });
        Self { database, events, feed, consumer }
    }

    /// Publishes, and waits until all of it has been applied.
    async fn publish(&self, news: &[Value]) {
        let end = {
            let mut events = self.events.lock().expect("unpoisoned");
            events.extend(news.iter().cloned());
            events.len()
        };
        let query = format!("select exists (select from users_cursors where cursor = 'at-{end}')");
        dev::postgres::until(&mut self.database.owner().await, &query).await;
    }

    async fn value<T>(&self, query: &str) -> T
    where
        T: for<'row> sqlx::Decode<'row, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let row = self.database.owner().await.fetch_one(AssertSqlSafe(query.to_owned())).await;
        row.unwrap_or_else(|error| panic!("{query}: {error}")).get(0)
    }

    /// How many orders the replica has as open for this user.
    async fn open(&self, user: Uuid) -> i64 {
        self.value(&format!("select count(*) from open_orders_replica where user_id = '{user}' and is_open")).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.consumer.abort();
    }
}

fn app(database: &TestDatabase) -> App {
    let database = Database::new(&database.url_as(USERS_ROLE), &Settings::new("users", 5)).expect("a URL");
    App::new(database, OpenOrders::local())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_counts_from_its_placing_to_its_end_however_often_and_late_it_is_told() {
    let service = Service::start().await;
    let (ada, eve) = (Uuid::now_v7(), Uuid::now_v7());
    let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    service
        .publish(&[event(first, 1, "placed", ada), event(second, 1, "placed", ada), event(third, 1, "placed", eve)])
        .await;
    assert_eq!((service.open(ada).await, service.open(eve).await), (2, 1));
    service
        .publish(&[event(first, 2, "paid", ada), event(first, 3, "shipped", ada), event(second, 2, "cancelled", ada)])
        .await;
    assert_eq!(service.open(ada).await, 1);
    service.publish(&[event(first, 4, "delivered", ada)]).await;
    assert_eq!(service.open(ada).await, 0);
    // All of it again, and in another order.
    let mut again = service.events.lock().expect("unpoisoned").clone();
    again.reverse();
    service.publish(&again).await;
    assert_eq!((service.open(ada).await, service.open(eve).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_passed_over_and_what_cannot_be_read_is_parked_until_it_can() {
    let service = Service::start().await;
    let (ada, order, other) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let mut later = event(order, 2, "placed", ada);
    later["type"] = json!("order.gift-wrapped.v1");
    let unknown_status = {
        let mut event = event(other, 1, "placed", ada);
        event["data"]["status"] = json!("lost");
        event
    };
    service.publish(&[event(order, 1, "placed", ada), later, unknown_status]).await;
    assert_eq!(service.open(ada).await, 1);
    let parked = "select coalesce(string_agg(id, ' '), '') from users_parked_events";
    assert_eq!(service.value::<String>(parked).await, format!("{other}/1"));

    let retry = || replica::run(app(&service.database), &service.feed, replica::Command::Retry);
    retry().await.expect("tried");
    assert_eq!(service.value::<String>(parked).await, format!("{other}/1"), "it is as it was");
    let mend = "update users_parked_events set data = replace(data, 'lost', 'placed')";
    service.database.owner().await.execute(mend).await.expect("mended");
    retry().await.expect("tried");
    assert_eq!((service.value::<String>(parked).await, service.open(ada).await), (String::new(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_while_the_schema_does_not_fit_and_none_is_parked() {
    let service = Service::start().await;
    let (ada, mut owner) = (Uuid::now_v7(), service.database.owner().await);
    service.publish(&[event(Uuid::now_v7(), 1, "placed", ada)]).await;
    owner.execute("alter table open_orders_replica rename refreshed_at to refreshed").await.expect("renamed");
    let failed = "select xact_rollback from pg_stat_database where datname = current_database()";
    let before = service.value::<i64>(failed).await;
    service.events.lock().expect("unpoisoned").push(event(Uuid::now_v7(), 1, "placed", ada));
    dev::postgres::until(&mut owner, &format!("select ({failed}) > {before}")).await;
    owner.execute("alter table open_orders_replica rename refreshed to refreshed_at").await.expect("renamed");
    service.publish(&[]).await;
    assert_eq!(service.open(ada).await, 2);
    assert_eq!(service.value::<i64>("select count(*) from users_parked_events").await, 0);
}
