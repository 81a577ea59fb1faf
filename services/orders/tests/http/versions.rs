//! A type of event gets a second version. A later release of orders, which knows both, works on the tables of this one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use chassis::events::consumer::{Feed, Inbox};
use chassis::events::{Broker, EventType, NoBroker, Outbox, Transport, Version, Wakeups};
use chassis::http::problem::Problem;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use serde_json::{Value, json};
use shared_db::{Database, DatabaseError, Settings, run};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use users::open_orders::{OpenOrders, replica};
use uuid::Uuid;

use crate::support::{Service, app, execute, follow, id, ids, settings, value};

/// Money is an object in version 2.
const PLACED_V2: Version = Version {
    name: "order.placed.v2",
    published: true,
    up: |mut data| {
        let total = json!({ "minor": data["total_minor"], "currency": data["currency"] });
        let fields = data.as_object_mut().expect("an object");
        fields.remove("total_minor");
        fields.remove("currency");
        fields.insert("total".to_owned(), total);
        data
    },
    down: |mut data| {
        let fields = data.as_object_mut().expect("an object");
        let total = fields.remove("total").expect("a total");
        fields.insert("total_minor".to_owned(), total["minor"].clone());
        fields.insert("currency".to_owned(), total["currency"].clone());
        data
    },
};

const NEXT: &[EventType] = &[
    &[Version::first("order.placed.v1"), PLACED_V2],
    &[Version::first("order.paid.v1")],
    &[Version::first("order.cancelled.v1")],
];

/// The tables of orders, as the later release sees them.
#[derive(Clone)]
struct NextRelease {
    database: Database,
    wakeups: Wakeups,
}

chassis::event_store!(NextRelease, run, Failed, "order", "orders", NEXT);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failed(#[from] DatabaseError);

impl From<Failed> for Problem {
    fn from(error: Failed) -> Self {
        Self::internal().caused_by(error)
    }
}

impl NextRelease {
    fn of(service: &Service) -> Self {
        let database = Database::new(&service.database.url_as(ORDERS_ROLE), &settings(5)).expect("a URL");
        Self { database, wakeups: Wakeups::default() }
    }

    /// Serves its events on a port; everything else is answered by today's release.
    async fn serve(&self, service: &Service) -> SocketAddr {
        let today = orders::router(app(&service.database.url_as(ORDERS_ROLE), &settings(5)));
        let (events, _) = chassis::events::routes::<_, ()>(self.clone()).split_for_parts();
        let router: Router = events.fallback_service(today);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}));
        address
    }

    /// Appends an order to the log as this release does it: in version 2.
    async fn place(service: &Service) -> Uuid {
        let order = Uuid::now_v7();
        let today = service.history(id(&service.place().await)).await;
        let mut data = (PLACED_V2.up)(today[0]["data"].clone());
        data["id"] = json!(order);
        let insert = "insert into order_events (order_id, version, type, data, occurred_at) values";
        let row = format!("('{order}', 1, 'order.placed.v2', '{data}', now())");
        execute(&mut service.database.owner().await, &format!("{insert} {row}")).await;
        order
    }
}

/// A consumer that knows only version 1: the real users service, on a database of its own.
async fn follow_as_users(orders: SocketAddr) -> TestDatabase {
    let own = TestDatabase::own("users");
    let database = Database::new(&own.url_as(USERS_ROLE), &Settings::new("users", 5)).expect("a URL");
    let users = users::App::new(database, OpenOrders::local());
    let feed = Feed::new("orders", &orders.into());
    tokio::spawn(async move { match replica::follow(users, feed, Transport::<NoBroker>::Feed).await {} });
    dev::postgres::until(&mut own.owner().await, "select exists (select from users_cursors)").await;
    own
}

/// A consumer that knows only version 2: the totals of all orders.
fn read_version_2(events: &[Value]) -> Vec<(&str, &Value)> {
    let known = events.iter().filter(|event| event["type"] == PLACED_V2.name);
    known.map(|event| (event["subject"].as_str().expect("an id"), &event["data"]["total"]["minor"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_type_has_two_versions_an_old_and_a_new_consumer_read_every_event() {
    chassis::metrics::recorder();
    let service = Service::start().await;
    let next = NextRelease::of(&service);
    let address = next.serve(&service).await;
    let users = follow_as_users(address).await;

    // Today's release writes version 1, and the next one version 2, for a while at the same time.
    let old = service.place_and(&["pay"]).await;
    let new = NextRelease::place(&service).await;
    let (rows, versions) = (4, 3 * 2 + 1);
    assert_eq!(value::<i64>(&mut service.database.owner().await, "select count(*) from order_events").await, rows);

    // The old consumer.
    let all_open = "select count(*) = 3 from open_orders_replica where is_open";
    dev::postgres::until(&mut users.owner().await, all_open).await;
    assert!(value::<bool>(&mut users.owner().await, "select not exists (select from users_parked_events)").await);
    let skipped = "events_skipped_total{replica=\"open orders\",reason=\"version\"} ";
    let metrics = service.client.get("/metrics").await.text();
    let skipped = metrics.lines().find_map(|line| line.strip_prefix(skipped)).unwrap_or_else(|| panic!("{metrics}"));
    assert_eq!(skipped, "3", "each in version 2");

    // The new consumer, from the first event on. Every event has an id of its own.
    let client = dev::http::Client::at(address);
    let mut events = Vec::new();
    let mut path = "/events?limit=2&wait=30".to_owned();
    while events.len() < versions {
        let (page, on) = follow_unchecked(&client, &path).await;
        events.extend(page);
        path = on;
    }
    assert_eq!(events.len(), versions);
    assert_eq!(ids(&events).into_iter().collect::<BTreeSet<_>>().len(), versions);
    let read = read_version_2(&events);
    assert_eq!(read.len(), 3);
    assert!(read.iter().any(|(order, _)| *order == id(&old)) && read.iter().any(|(order, _)| *order == new.to_string()));
    assert!(read.iter().all(|(_, total)| **total == 700), "{read:?}");

    // What was not converted is as it always was: today's release publishes the same.
    let of_old = |event: &&Value| event["subject"] == id(&old) && event["type"] != PLACED_V2.name;
    let today = service.history(id(&old)).await;
    assert_eq!(events.iter().filter(of_old).collect::<Vec<_>>(), today.iter().collect::<Vec<_>>());
    let history = client.get(format!("/orders/{}/events", id(&old))).await.expect(200).json();
    let types: Vec<_> = history["items"].as_array().expect("items").iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["order.placed.v2", "order.paid.v1"], "a history has each event once, in its newest version");
}

/// A page of the feed without a comparison with today's contract, and the path of the next one.
async fn follow_unchecked(client: &dev::http::Client, path: &str) -> (Vec<Value>, String) {
    let answer = client.get(path).await.expect(200);
    (answer.json().as_array().expect("a page").clone(), crate::support::next(&answer).expect("a link"))
}

/// A broker that confirms some events, and then stops.
#[derive(Clone)]
struct Stopping {
    confirms: usize,
    confirmed: Arc<Mutex<Vec<String>>>,
    stopped: Arc<Notify>,
}

impl Broker for Stopping {
    fn system(&self) -> &'static str {
        "stopping"
    }

    async fn publish<O: Outbox>(&self, _: &'static str, source: &'static str, outbox: &O, _: &Wakeups) -> Infallible {
        let after = outbox.published().await.expect("read");
        for (position, event) in outbox.read(after, 10).await.expect("read").into_iter().take(self.confirms) {
            outbox.store_published(position).await.expect("stored");
            self.confirmed.lock().expect("unpoisoned").push(event.publish(source).id);
        }
        self.stopped.notify_one();
        std::future::pending().await
    }

    async fn consume<I: Inbox>(&self, _: &str, _: &'static str, _: &I) -> Infallible {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_relay_that_stops_between_two_versions_of_an_event_repeats_it() {
    let service = Service::start().await;
    let order = service.place().await;
    // Another test's transaction may withhold it.
    follow(&service.client, "/events?wait=30", 1).await;
    let (next, confirmed) = (NextRelease::of(&service), Arc::new(Mutex::new(Vec::new())));
    for confirms in [1, 10, 10] {
        let broker = Stopping { confirms, confirmed: confirmed.clone(), stopped: Arc::default() };
        tokio::select! {
            never = chassis::events::publish(&next, std::slice::from_ref(&broker)) => match never {},
            () = broker.stopped.notified() => {}
        }
    }
    let [first, second] = [format!("{}/1", id(&order)), format!("{}/1/v2", id(&order))];
    assert_eq!(*confirmed.lock().expect("unpoisoned"), [first.clone(), first, second], "and nothing in the third run");
}
