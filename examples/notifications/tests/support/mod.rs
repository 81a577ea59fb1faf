//! The real orders service, the program, and a webhook that counts.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "each test program uses a part of it, and looks at what no service would"
)]

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chassis::remote::Limits;
use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, TestDatabase};
use dev::process::{Leashed, Signal};
use dev::wait::until;
use orders::customers::{Customers, Users};
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use sqlx::Executor;
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

/// How many notifications the program sends at once: so many may be repeated after it was killed.
const AT_ONCE: usize = 16;

/// The orders service, as its real role, on a port.
pub struct Orders {
    pub app: orders::App,
    pub address: SocketAddr,
    client: Client,
    database: TestDatabase,
    user: Uuid,
}

impl Orders {
    pub async fn start() -> Self {
        let database = TestDatabase::create();
        let users = Users::http(&"http://127.0.0.1:1".parse().expect("a URL"), Limits::default());
        let settings = Settings { queue_timeout: Duration::from_secs(40), ..Settings::new("orders", 5) };
        let own = Database::new(&database.url_as(ORDERS_ROLE), &settings).expect("a URL");
        let app = orders::App::new(own, Customers::local(users));
        let address = serve(orders::router(app.clone())).await;
        let user = Uuid::now_v7();
        let insert = "insert into users values ($1, 'ada@example.org', 'Ada', 'active', now(), now(), 1)";
        sqlx::query(insert).bind(user).execute(&mut database.owner().await).await.expect("a user");
        Self { app, client: Client::at(address), address, database, user }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Places an order and takes these steps.
    pub async fn place_and(&self, steps: &[&str]) {
        let item = json!({ "sku": "tea", "quantity": 1, "unit_price_minor": 350 });
        let order = json!({ "user_id": self.user, "currency": "EUR", "items": [item] });
        let order = self.client.post("/orders").json(&order).await.expect(201).json();
        for step in steps {
            self.client.post(format!("/orders/{}/{step}", order["id"].as_str().expect("an id"))).await.expect(200);
        }
    }

    /// The ids of all events.
    pub async fn events(&self) -> Vec<String> {
        let ids = "select order_id || '/' || version from order_events order by order_id, version";
        sqlx::query_scalar(ids).fetch_all(&mut self.database.owner().await).await.expect("events")
    }

    pub async fn execute(&self, statements: &'static str) {
        self.database.owner().await.execute(statements).await.expect(statements);
    }
}

/// Serves `router` on a free port.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}));
    address
}

/// How a webhook answers: what it is asked with which key, and how often it has been asked with it.
type Answer = fn(&str, usize) -> StatusCode;

/// A webhook, and what it was asked.
#[derive(Clone)]
pub struct Webhook {
    pub url: String,
    asked: Arc<Mutex<Vec<(String, Value, StatusCode)>>>,
    answer: Answer,
}

impl Webhook {
    pub async fn start(answer: Answer) -> Self {
        let mut webhook = Self { url: String::new(), asked: Arc::default(), answer };
        let address = serve(Router::new().route("/", post(receive)).with_state(webhook.clone())).await;
        webhook.url = format!("http://{address}/");
        webhook
    }

    /// The keys that it took, in the order in which it did.
    pub fn taken(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("unpoisoned");
        asked.iter().filter(|(_, _, status)| status.is_success()).map(|(key, _, _)| key.clone()).collect()
    }

    /// The bodies that it took.
    pub fn bodies(&self) -> Vec<Value> {
        self.asked.lock().expect("unpoisoned").iter().map(|(_, body, _)| body.clone()).collect()
    }

    /// Waits until it has taken all of these.
    pub async fn until_taken(&self, keys: &[String]) {
        until("all notifications arrive", async || {
            let taken = self.taken();
            keys.iter().all(|key| taken.contains(key))
        })
        .await;
    }
}

async fn receive(State(webhook): State<Webhook>, headers: HeaderMap, body: String) -> StatusCode {
    let key = headers["idempotency-key"].to_str().expect("text").to_owned();
    let mut asked = webhook.asked.lock().expect("unpoisoned");
    let before = asked.iter().filter(|(other, ..)| *other == key).count();
    let status = (webhook.answer)(&key, before);
    asked.push((key, serde_json::from_str(&body).expect("JSON"), status));
    status
}

/// The program's folder, and how it is started.
pub struct Program {
    folder: TempDir,
    arguments: Vec<String>,
}

impl Program {
    pub fn new(via: &str, source: &[&str], webhook: &Webhook) -> Self {
        let arguments = ["--webhook", &webhook.url, "--via", via].map(str::to_owned).to_vec();
        let mut program = Self { folder: tempfile::tempdir().expect("a folder"), arguments };
        program.read_from(source);
        program
    }

    /// Reads from this source from its next start on.
    pub fn read_from(&mut self, source: &[&str]) {
        self.arguments.truncate(4);
        self.arguments.extend(source.iter().map(|&argument| argument.to_owned()));
    }

    /// Starts it. It is killed when the value is dropped.
    pub fn start(&self) -> Leashed {
        Leashed::start(&self.command(&[]), Signal::SIGKILL).expect("it starts")
    }

    pub fn command(&self, more: &[&str]) -> Command {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_notifications"));
        command.args(&self.arguments).args(more).env_clear().current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Waits until its file says that so many are sent. What it has only sent, it sends again after a kill.
    pub async fn until_stored(&self, sent: usize) {
        until(format!("{sent} are stored as sent"), async || self.file().get("sent") == Some(&(sent as i64))).await;
    }

    /// What its file says: a line for each state and for each reason not to send.
    pub fn file(&self) -> HashMap<String, i64> {
        let file = rusqlite::Connection::open(self.folder.path().join("notifications.db")).expect("its file");
        let mut statement = file
            .prepare("select state, count(*) from notifications group by state union all select reason, events from skipped")
            .expect("a query");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    }
}

/// Kills the program, and waits until it has ended: the next one may not run beside it.
pub fn kill(running: Leashed) {
    tokio::task::block_in_place(|| running.stop()).expect("ended");
}

/// Places orders while the program is killed again and again, and `trouble` happens to what is between. Every event becomes
/// a notification, in its order's order, and only a kill repeats one.
pub async fn nothing_is_missing(orders: &Orders, webhook: &Webhook, program: &Program, mut trouble: impl AsyncFnMut(usize)) {
    let mut running = program.start();
    let mut kills = 0;
    for n in 0..32 {
        let steps: &[&str] = [&["pay", "ship", "deliver"][..], &["pay"], &["cancel"], &[]][n % 4];
        orders.place_and(steps).await;
        trouble(n).await;
        if n % 6 == 5 {
            // Anywhere: while it starts, reads, stores, sends. Not a wait for anything.
            tokio::time::sleep(Duration::from_millis((n as u64 * 97) % 400)).await;
            kill(running);
            kills += 1;
            running = program.start();
        }
    }
    let events = orders.events().await;
    webhook.until_taken(&events).await;
    program.until_stored(events.len()).await;
    kill(running);
    let taken = webhook.taken();
    let mut firsts: Vec<&String> = Vec::new();
    for key in &taken {
        if !firsts.contains(&key) {
            firsts.push(key);
        }
    }
    assert!(taken.len() - firsts.len() <= kills * AT_ONCE, "only what a kill has cut off is repeated: {taken:#?}");
    let mut in_order = firsts.clone();
    in_order.sort_by_key(|key| key.split_once('/').expect("an order").0.to_owned());
    assert_eq!(in_order, events.iter().collect::<Vec<_>>(), "each order's in their order, and no other");
}
