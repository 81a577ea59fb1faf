//! `splitctl compare`, `replace` and `restore` on the manifest's two replicas, and the rule that spans both services while
//! each service knows the other's data from events alone.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what no service would")]

mod splitctl;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::events::consumer::Feed;
use chassis::events::{NoBroker, Transport};
use chassis::remote::Limits;
use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use orders::customers::{Customers, Users};
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::task::JoinHandle;
use users::open_orders::OpenOrders;

const PATIENT: Limits =
    Limits { connect: Duration::from_secs(40), attempt: Duration::from_secs(40), call: Duration::from_secs(45) };

/// Both services on one database, each at an address.
struct Pair {
    database: TestDatabase,
    users: Client,
    orders: Client,
    apps: (users::App, orders::App),
    addresses: (SocketAddr, SocketAddr),
    servers: [JoinHandle<()>; 2],
    consumers: Vec<JoinHandle<()>>,
}

fn listen() -> (tokio::net::TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a listener for the runtime");
    (tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime"), address)
}

fn database(url: &str, name: &str) -> Database {
    let settings = Settings::new(name, 10).with_patience(Duration::from_secs(40));
    Database::new(url, &settings).expect("a URL")
}

impl Pair {
    /// Starts both services. No consumer runs yet.
    fn start() -> Self {
        let shared = TestDatabase::create();
        let ((of_users, users_at), (of_orders, orders_at)) = (listen(), listen());
        let users = users::App::new(database(&shared.url_as(USERS_ROLE), "users"), OpenOrders::local());
        let customers = Customers::local(Users::http(&users_at.into(), PATIENT));
        let orders = orders::App::new(database(&shared.url_as(ORDERS_ROLE), "orders"), customers);
        let serve =
            |listener, router| tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}));
        let servers = [serve(of_users, users::router(users.clone())), serve(of_orders, orders::router(orders.clone()))];
        Self {
            database: shared,
            users: Client::at(users_at),
            orders: Client::at(orders_at),
            apps: (users, orders),
            addresses: (users_at, orders_at),
            servers,
            consumers: Vec::new(),
        }
    }

    /// Starts both consumers.
    fn follow(&mut self) {
        self.orders_follow();
        let feed = Feed::new("orders", &self.addresses.1.into());
        let app = self.apps.0.clone();
        self.consumers.push(tokio::spawn(async move {
            match users::open_orders::replica::follow(app, feed, Transport::<NoBroker>::Feed).await {}
        }));
    }

    fn orders_follow(&mut self) {
        let feed = Feed::new("users", &self.addresses.0.into());
        let app = self.apps.1.clone();
        self.consumers.push(tokio::spawn(async move {
            match orders::customers::replica::follow(app, feed, Transport::<NoBroker>::Feed).await {}
        }));
    }

    /// Stops the consumers, and waits until they have released their locks.
    async fn stop_following(&mut self) {
        for consumer in self.consumers.drain(..) {
            consumer.abort();
            let _ = consumer.await;
        }
        self.until(
            "select count(*) = 0
             from pg_locks l
             join pg_database d on d.oid = l.database and d.datname = current_database()
             where l.locktype = 'advisory'",
        )
        .await;
    }

    /// Runs `splitctl` in a folder without a file `.env`, and returns its exit code and all that it prints.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = splitctl::command(arguments);
        command.env("DATABASE_URL", self.database.url()).current_dir(std::env::temp_dir());
        let output = tokio::task::spawn_blocking(move || command.output().expect("splitctl runs")).await.expect("no panic");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    }

    /// Runs `splitctl`, which must succeed.
    async fn splitctl(&self, arguments: &[&str]) -> String {
        self.refused(arguments, 0).await
    }

    /// Runs `splitctl`, which must end with this exit code.
    async fn refused(&self, arguments: &[&str], code: i32) -> String {
        let (ended, said) = self.run(arguments).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        said
    }

    /// Both services follow, and have read their snapshots.
    async fn follow_from_the_start(&mut self) {
        self.follow();
        self.until("select (select count(*) from orders_cursors) + (select count(*) from users_cursors) = 2").await;
    }

    /// Waits until both replicas are as published, and puts them behind the views.
    async fn split(&mut self) {
        self.follow_from_the_start().await;
        self.splitctl(&["replace", "customers"]).await;
        self.splitctl(&["replace", "open_orders"]).await;
    }

    async fn execute(&self, statements: &str) {
        let done = self.database.owner().await.execute(AssertSqlSafe(statements.to_owned())).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Waits until the owner gets `true` as the answer.
    async fn until(&self, query: &str) {
        dev::postgres::until(&mut self.database.owner().await, query).await;
    }

    async fn register(&self, name: &str) -> String {
        let person = json!({ "email": format!("{}@example.org", uuid::Uuid::now_v7()), "name": name });
        id(&self.users.post("/users").json(&person).await.expect(201).json())
    }

    async fn place(&self, user: &str) -> dev::http::Answer {
        place(&self.orders, user).await
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.servers.iter().chain(&self.consumers).for_each(JoinHandle::abort);
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

async fn place(orders: &Client, user: &str) -> dev::http::Answer {
    let items = json!([{ "sku": "tea", "quantity": 1, "unit_price_minor": 350 }]);
    orders.post("/orders").json(&json!({ "user_id": user, "currency": "EUR", "items": items })).await
}

/// What `replace` could leave changed.
const DEFINITIONS: &str = "select string_agg(definition, E'\\n' order by definition) from (
    select viewname || pg_get_viewdef(viewname::regclass) from pg_views where schemaname = 'public'
    union all select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
    union all select relname || coalesce(relacl::text, '') || coalesce(obj_description(oid), '') from pg_class
        where relnamespace = 'public'::regnamespace) d (definition)";

async fn definitions(pair: &Pair) -> String {
    pair.database.owner().await.fetch_one(DEFINITIONS).await.expect("the definitions").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_shows_every_row_that_is_not_as_published_and_rebuilding_mends_it() {
    let mut pair = Pair::start();
    let (ada, eve) = (pair.register("Ada").await, pair.register("Eve").await);
    let order = id(&pair.place(&ada).await.expect(201).json());
    pair.follow();
    // What was there before the first event it reads comes by the snapshot.
    pair.splitctl(&["compare", "--patience", "60s"]).await;
    pair.stop_following().await;

    let stranger = uuid::Uuid::now_v7();
    pair.execute(&format!(
        "update customers_replica set name = 'Eva' where id = '{eve}';
         delete from customers_replica where id = '{ada}';
         insert into customers_replica values ('{stranger}', 'Nobody', 'active', 7);
         update open_orders_replica set is_open = false where order_id = '{order}';
         insert into open_orders_replica values ('{stranger}', '{ada}', true, 1)"
    ))
    .await;
    let said = pair.refused(&["compare", "--patience", "0s", "--format", "json"], 1).await;
    let document: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(document["equal"], false, "{said}");
    let compared = document["compared"].as_array().expect("a list").iter();
    let mut differences: Vec<(String, &str)> = compared
        .flat_map(|comparison| comparison["differences"].as_array().expect("a list"))
        .map(|row| (row["key"].as_str().expect("a key").to_owned(), row["difference"].as_str().expect("text")))
        .collect();
    differences.sort();
    let mut expected = [
        (ada.clone(), "missing"),
        (eve.clone(), "different"),
        (stranger.to_string(), "extra"),
        (order.clone(), "missing"),
        (stranger.to_string(), "extra"),
    ];
    expected.sort();
    assert_eq!(differences, expected, "{said}");
    let said = pair.refused(&["compare", "customers", "--patience", "0s"], 1).await;
    assert!(said.contains("customers: 3 rows compared, 3 differ") && !said.contains("Eva"), "{said}");

    // The services' own commands, while nothing else of them runs.
    let feed = Feed::new("users", &pair.addresses.0.into());
    let rebuild = orders::customers::replica::Command::Rebuild;
    orders::customers::replica::run(pair.apps.1.clone(), &feed, rebuild).await.expect("rebuilt");
    let feed = Feed::new("orders", &pair.addresses.1.into());
    let rebuild = users::open_orders::replica::Command::Rebuild;
    users::open_orders::replica::run(pair.apps.0.clone(), &feed, rebuild).await.expect("rebuilt");
    pair.splitctl(&["compare", "--patience", "0s"]).await;
    pair.execute("drop view customers; drop table customers_replica cascade").await;
    pair.refused(&["compare"], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_not_kept_up_or_not_equal_is_not_used() {
    let mut pair = Pair::start();
    let ada = pair.register("Ada").await;
    let before = definitions(&pair).await;
    let said = pair.refused(&["replace", "customers", "--patience", "2s"], 1).await;
    assert!(said.contains("EVENTS_VIA"), "{said}");
    pair.orders_follow();
    pair.until("select count(*) = 1 from customers_replica").await;
    pair.execute("insert into orders_parked_events values ('x/1', 'user.changed.v1', '{}', 'unreadable')").await;
    let said = pair.refused(&["replace", "customers", "--patience", "2s"], 1).await;
    assert!(said.contains("orders_parked_events: 1 events are parked"), "{said}");
    pair.execute("delete from orders_parked_events").await;
    pair.execute(&format!("update customers_replica set name = 'Eva' where id = '{ada}'")).await;
    let said = pair.refused(&["replace", "customers", "--patience", "2s"], 1).await;
    assert!(said.contains("customers: 1 of 1 rows still differ after 2s"), "{said}");
    assert_eq!(definitions(&pair).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_while_replicas_are_put_behind_the_views_and_taken_back() {
    let mut pair = Pair::start();
    let before = definitions(&pair).await;
    pair.follow_from_the_start().await;
    let over = Arc::new(AtomicBool::new(false));
    let load: Vec<JoinHandle<usize>> = (0..6)
        .map(|worker| {
            let (users, orders, over) = (pair.users.clone(), pair.orders.clone(), over.clone());
            tokio::spawn(async move {
                let mut rounds = 0;
                while !over.load(Ordering::Relaxed) {
                    round(&users, &orders, &format!("{worker}-{rounds}")).await;
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    for _ in 0..3 {
        for what in ["customers", "open_orders"] {
            pair.splitctl(&["replace", what]).await;
            let said = pair.splitctl(&["replace", what]).await;
            assert!(said.contains("already"), "{said}");
        }
        for what in ["open_orders", "customers"] {
            pair.splitctl(&["restore", what]).await;
            let said = pair.splitctl(&["restore", what]).await;
            assert!(said.contains("nothing to restore"), "{said}");
        }
        assert_eq!(definitions(&pair).await, before);
    }
    over.store(true, Ordering::Relaxed);
    for worker in load {
        assert!(worker.await.expect("no request fails") > 0);
    }
    pair.splitctl(&["compare", "--patience", "60s"]).await;
    pair.until(SETTLED).await;
}

/// No order is open, and can be cancelled, whose user is deactivated.
const SETTLED: &str = "select not exists (
    select
    from orders o
    join users u on u.id = o.user_id
    where u.status = 'deactivated'
      and o.status in ('placed', 'paid'))";

/// What people do. A user who has just registered can order, and no answer is a failure of the services.
async fn round(users: &Client, orders: &Client, name: &str) {
    let person = json!({ "email": format!("{name}@example.org"), "name": name });
    let user = id(&users.post("/users").json(&person).await.expect(201).json());
    let order = place(orders, &user).await.expect(201).json();
    assert_eq!(order["customer"]["name"], name);
    let path = format!("/orders/{}", id(&order));
    assert_eq!(orders.get(&path).await.expect(200).json()["customer"]["id"], user.as_str());
    users.patch(format!("/users/{user}")).json(&json!({ "name": "Other" })).await.expect(200);
    let deactivated = users.delete(format!("/users/{user}")).await;
    assert!([204, 409].contains(&deactivated.status), "{}", deactivated.text());
    for step in ["pay", "ship", "deliver"] {
        let answer = orders.post(format!("{path}/{step}")).await;
        // Of a user whose order was not heard of in time.
        assert!(answer.status == 200 || (answer.status == 409 && deactivated.status == 204), "{step}: {}", answer.text());
    }
    let page = orders.get(format!("/orders?user_id={user}")).await.expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_split_the_rule_holds_as_far_as_the_events_have_come() {
    let mut pair = Pair::start();
    pair.split().await;
    let ada = pair.register("Ada").await;
    let order = id(&pair.place(&ada).await.expect(201).json());
    pair.until(&format!("select exists (select from open_orders where user_id = '{ada}')")).await;
    pair.users.delete(format!("/users/{ada}")).await.problem(409, "open-orders");
    pair.orders.post(format!("/orders/{order}/cancel")).await.expect(200);
    pair.until(&format!("select not exists (select from open_orders where user_id = '{ada}')")).await;
    pair.users.delete(format!("/users/{ada}")).await.expect(204);
    pair.until(&format!("select status = 'deactivated' from customers where id = '{ada}'")).await;
    pair.place(&ada).await.problem(409, "user-deactivated");
    pair.users.post(format!("/users/{ada}/reactivate")).await.expect(200);
    pair.until(&format!("select status = 'active' from customers where id = '{ada}'")).await;
    pair.place(&ada).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_slipped_through_is_cancelled_and_one_that_was_shipped_arrives() {
    let mut pair = Pair::start();
    pair.split().await;
    let users = [pair.register("Ada").await, pair.register("Eve").await, pair.register("Joe").await];
    for user in &users {
        pair.until(&format!("select exists (select from customers where id = '{user}')")).await;
    }
    pair.stop_following().await;
    // Neither hears of the other.
    let mut orders = Vec::new();
    for (user, steps) in users.iter().zip([&[][..], &["pay"], &["pay", "ship"]]) {
        pair.users.delete(format!("/users/{user}")).await.expect(204);
        let order = id(&pair.place(user).await.expect(201).json());
        for step in steps {
            pair.orders.post(format!("/orders/{order}/{step}")).await.expect(200);
        }
        orders.push(order);
    }
    pair.follow();
    pair.until(SETTLED).await;
    for (order, expected) in orders.iter().zip(["cancelled", "cancelled", "shipped"]) {
        let now = pair.orders.get(format!("/orders/{order}")).await.expect(200).json();
        assert_eq!(now["status"], expected, "{now}");
        if expected == "cancelled" {
            let history = pair.orders.get(format!("/orders/{order}/events")).await.expect(200).json();
            let last = history["items"].as_array().and_then(|events| events.last()).expect("events").clone();
            assert_eq!(last["data"]["cancel_reason"], "customer-deactivated", "{last}");
        } else {
            pair.orders.post(format!("/orders/{order}/deliver")).await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn orders_and_deactivations_at_once_always_settle() {
    let mut pair = Pair::start();
    pair.split().await;
    for round in 0..40 {
        let user = pair.register("Ada").await;
        if round % 2 == 0 {
            pair.until(&format!("select exists (select from customers where id = '{user}')")).await;
        }
        let orders = (0..3).map(|_| {
            let (orders, user) = (pair.orders.clone(), user.clone());
            tokio::spawn(async move { place(&orders, &user).await })
        });
        let orders: Vec<_> = orders.collect();
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        let deactivated = pair.users.delete(format!("/users/{user}")).await;
        assert!([204, 409].contains(&deactivated.status), "{}", deactivated.text());
        for order in orders {
            let answer = order.await.expect("an answer");
            assert!([201, 409].contains(&answer.status), "{}", answer.text());
        }
    }
    pair.splitctl(&["compare", "--patience", "60s"]).await;
    pair.until(SETTLED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_the_replica_has_not_heard_of_is_asked_for_and_never_refused_for_that() {
    let mut pair = Pair::start();
    pair.split().await;
    pair.stop_following().await;
    let ada = pair.register("Ada").await;
    let order = pair.place(&ada).await.expect(201).json();
    assert_eq!(order["customer"]["name"], "Ada");
    pair.place(&uuid::Uuid::now_v7().to_string()).await.problem(422, "unknown-user");
    let eve = pair.register("Eve").await;
    pair.users.delete(format!("/users/{eve}")).await.expect(204);
    pair.place(&eve).await.problem(409, "user-deactivated");

    let joe = pair.register("Joe").await;
    pair.servers[0].abort();
    // Kept connections are served to their end; a new process of orders has none.
    let away = Customers::local(Users::http(&"http://127.0.0.1:1".parse().expect("a URL"), Limits::default()));
    let alone = Client::router(orders::router(orders::App::new(pair.apps.1.database.clone(), away)));
    place(&alone, &joe).await.problem(503, "");
    place(&alone, &ada).await.expect(201);
}
