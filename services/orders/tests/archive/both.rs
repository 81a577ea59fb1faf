//! Archives while users follows orders' feed, and while `splitctl` moves orders' tables.

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::events::consumer::Feed;
use chassis::events::{NoBroker, Transport};
use chassis::remote::Limits;
use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE, until};
use orders::customers::{Customers, Users};
use serde_json::{Value, json};
use shared_db::Database;
use tokio::task::JoinHandle;
use users::open_orders::OpenOrders;
use uuid::Uuid;

use crate::program::archived;
use crate::splitctl::{self, SPLITCTL};
use crate::support::{execute, follow, id, settings, value};

/// Both services on one database, and the database that orders' tables can move to.
struct Pair {
    source: TestDatabase,
    target: TestDatabase,
    orders: Client,
    user: String,
    apps: (users::App, orders::App),
    addresses: [SocketAddr; 2],
    servers: Vec<JoinHandle<()>>,
}

impl Pair {
    async fn start() -> Self {
        let (source, target) = (TestDatabase::create(), TestDatabase::own("orders"));
        let listeners = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a port"));
        let addresses = [0, 1].map(|n: usize| listeners[n].local_addr().expect("an address"));
        let database = |role| Database::new(&source.url_as(role), &settings(10)).expect("a URL");
        let users = users::App::new(database(USERS_ROLE), OpenOrders::local());
        let moving = database(ORDERS_ROLE).moving("orders", &target.url_as(ORDERS_ROLE), &settings(10)).expect("a URL");
        let customers = Customers::local(Users::http(&addresses[0].into(), Limits::default()));
        let orders = orders::App::new(moving, customers);
        let routers = [users::router(users.clone()), orders::router(orders.clone())];
        let servers = listeners.into_iter().zip(routers).map(|(listener, router)| {
            listener.set_nonblocking(true).expect("a listener for the runtime");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime");
            tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}))
        });
        let servers = servers.collect();
        let person = json!({ "email": format!("{}@example.org", Uuid::now_v7()), "name": "Ada" });
        let user = Client::at(addresses[0]).post("/users").json(&person).await.expect(201).json();
        let (user, orders_client) = (id(&user).to_owned(), Client::at(addresses[1]));
        Self { source, target, orders: orders_client, user, apps: (users, orders), addresses, servers }
    }

    fn users_follow(&self) -> JoinHandle<()> {
        let (app, feed) = (self.apps.0.clone(), Feed::new("orders", &self.addresses[1].into()));
        tokio::spawn(
            async move { match users::open_orders::replica::follow(app, feed, Transport::<NoBroker>::Feed).await {} },
        )
    }

    fn orders_follow(&self) -> JoinHandle<()> {
        let (app, feed) = (self.apps.1.clone(), Feed::new("users", &self.addresses[0].into()));
        tokio::spawn(
            async move { match orders::customers::replica::follow(app, feed, Transport::<NoBroker>::Feed).await {} },
        )
    }

    /// Places an order, and takes these steps.
    async fn place_and(&self, steps: &[&str]) -> Value {
        let items = json!([{ "sku": "tea", "quantity": 1, "unit_price_minor": 350 }]);
        let order = json!({ "user_id": self.user, "currency": "EUR", "items": items });
        let mut order = self.orders.post("/orders").json(&order).await.expect(201).json();
        for step in steps {
            order = self.orders.post(format!("/orders/{}/{step}", id(&order))).await.expect(200).json();
        }
        order
    }

    /// Lets 500 days pass for all events on this side.
    async fn grow_old(&self, on: &TestDatabase) {
        let mut owner = on.owner().await;
        execute(&mut owner, "update order_events set occurred_at = occurred_at - interval '500 days'").await;
        execute(&mut owner, "update orders set updated_at = updated_at - interval '500 days'").await;
        let shown = "select not exists (select from order_events where epoch = order_event_epoch()
                               and xid >= pg_snapshot_xmin(pg_current_snapshot()))";
        until(&mut owner, shown).await;
    }

    /// Runs `orders`, which follows its tables, and must succeed.
    fn orders(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
        command.env_clear().current_dir("/").args(arguments);
        command.env("ORDERS_DATABASE_URL", self.source.url_as(ORDERS_ROLE));
        command.env("ORDERS_DATABASE_NEXT_URL", self.target.url_as(ORDERS_ROLE));
        succeed(command)
    }

    fn archive(&self, folder: &Path) -> String {
        self.orders(&["events", "archive", "--older-than", "400d", "--to", &folder.display().to_string()])
    }

    /// Takes the steps of splitctl while `orders events archive` runs again and again, and at least once more after them.
    fn splitctl_while_archiving(&self, steps: &[&str], folder: &Path) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let archiving = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.archive(folder);
                }
                self.archive(folder);
            });
            // A step that fails must not leave the thread running.
            let done = catch_unwind(AssertUnwindSafe(|| {
                steps.iter().for_each(|step| self.splitctl(&step.split(' ').collect::<Vec<_>>()));
            }));
            over.store(true, Ordering::Relaxed);
            archiving.join().expect("every archive succeeds");
            done.expect("every step succeeds");
        });
    }

    fn splitctl(&self, arguments: &[&str]) {
        let mut command = splitctl::command(arguments);
        command
            .current_dir("/")
            .env("DATABASE_URL", self.source.url())
            .env("ORDERS_DATABASE_NEXT_OWNER_URL", self.target.url());
        succeed(command);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

fn succeed(mut command: Command) -> String {
    let output = command.output().expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// The other service was away for longer than events are kept. What it missed is in the archive, and it recovers by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_away_for_too_long_refills_its_replica() {
    let (pair, folder) = (Pair::start().await, tempfile::tempdir().expect("a folder"));
    let missed = pair.place_and(&[]).await;
    let consumer = pair.users_follow();
    let mut owner = pair.source.owner().await;
    let known = |order: &Value, open: bool, version: i64| {
        let order = id(order).to_owned();
        format!(
            "select exists (select from open_orders_replica
                            where order_id = '{order}' and is_open = {open} and version = {version})"
        )
    };
    until(&mut owner, &known(&missed, true, 1)).await;
    until(&mut owner, "select exists (select from users_cursors where log = 'orders'' feed')").await;
    consumer.abort();
    let _ = consumer.await;

    for step in ["pay", "ship", "deliver"] {
        pair.orders.post(format!("/orders/{}/{step}", id(&missed))).await.expect(200);
    }
    let open = pair.place_and(&["pay"]).await;
    pair.grow_old(&pair.source).await;
    assert!(pair.archive(folder.path()).starts_with("4 events moved"));

    let consumer = pair.users_follow();
    until(&mut owner, &known(&open, true, 2)).await;
    until(&mut owner, &format!("select not is_open from open_orders_replica where order_id = '{}'", id(&missed))).await;
    let young = pair.place_and(&["cancel"]).await;
    until(&mut owner, &known(&young, false, 2)).await;
    consumer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_archived_before_during_and_after_a_move() {
    LazyLock::force(&SPLITCTL);
    let (pair, folder) = (Pair::start().await, tempfile::tempdir().expect("a folder"));
    let consumers = [pair.users_follow(), pair.orders_follow()];
    let mut all = Vec::new();
    let mut expected = 0;
    let check = "0 different from their events, 0 repaired\n";
    // On the source, before the copy, while changes stream to the target, during both switches, and after them.
    for (steps, before, after) in [
        (&["replace customers", "replace open_orders"][..], &pair.source, &pair.source),
        (&["copy orders"], &pair.source, &pair.source),
        (&["verify orders", "detach orders", "cutover orders"], &pair.source, &pair.target),
        (&["verify orders", "rollback orders"], &pair.target, &pair.source),
    ] {
        all.push(pair.place_and(&["pay", "ship"]).await);
        all.push(pair.place_and(&["cancel"]).await);
        expected += 3;
        pair.grow_old(before).await;
        tokio::task::block_in_place(|| pair.splitctl_while_archiving(steps, folder.path()));
        let out = pair.archive(folder.path());
        assert!(out.starts_with("0 events moved"), "{steps:?}: {out}");
        assert_eq!(archived(folder.path()).len(), expected);
        assert!(pair.orders(&["rebuild", "--check"]).ends_with(check), "{steps:?}");
        let mut owner = after.owner().await;
        let count = value::<i64>(&mut owner, "select count(*) from order_events").await;
        assert_eq!(count, all.len() as i64, "{steps:?}");
        let (events, _) = follow(&pair.orders, "/events?wait=30&limit=3", all.len()).await;
        let mut kept: Vec<&str> = events.iter().map(id).collect();
        let newest: Vec<String> = all.iter().map(|order| format!("{}/{}", id(order), order["version"])).collect();
        let mut newest: Vec<&str> = newest.iter().map(String::as_str).collect();
        kept.sort_unstable();
        newest.sort_unstable();
        assert_eq!(kept, newest, "{steps:?}");
    }
    consumers.iter().for_each(JoinHandle::abort);
}
