//! The services: users in this process, and orders as the real program.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use chassis::events::consumer::Feed;
use chassis::events::{NoBroker, Transport};
use chassis::resource::Resource;
use chassis::tls::TlsConfig;
use chassis::traces::{Traces, TracesConfig};
use clap::Parser;
use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use dev::process::{Leashed, Signal, free_address};
use dev::wait::until;
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use users::open_orders::{OpenOrders, replica};

use crate::collector::Collector;

/// How long a slow machine may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A caller's trace, and its span that calls.
pub struct Caller {
    pub trace: String,
    pub span: String,
}

impl Caller {
    pub fn new() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { span: id[..16].to_owned(), trace: id }
    }

    /// The header of a caller that traces, or not.
    pub fn traceparent(&self, is_sampled: bool) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(is_sampled))
    }
}

/// The collector, and this process's traces, which go there as those of users. They outlive each test.
struct Shared {
    collector: Collector,
    _traces: Traces,
    _runtime: Runtime,
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    traces: TracesConfig,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    // On a thread outside of the test's runtime.
    let start = || {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let collector = runtime.block_on(Collector::start());
        let endpoint = format!("http://{}", collector.http);
        let options = Options::parse_from(["users", "--otel-exporter-otlp-endpoint", &endpoint]);
        let inside = runtime.enter();
        let traces = options.traces.begin(&Resource::new("users", "9.8.7"), &TlsConfig::default()).expect("traces");
        drop(inside);
        Shared { collector, _traces: traces, _runtime: runtime }
    };
    thread::spawn(start).join().expect("started")
});

pub fn collector() -> &'static Collector {
    &SHARED.collector
}

/// users, served over HTTP and gRPC, in this process.
pub struct Users {
    pub database: TestDatabase,
    pub client: Client,
    http: SocketAddr,
    grpc: SocketAddr,
    app: users::App,
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

impl Users {
    pub async fn start() -> Self {
        // The traces begin before any request.
        collector();
        let database = TestDatabase::create();
        let settings = Settings::new("users", 4).with_patience(PATIENCE);
        let open = Database::new(&database.url_as(USERS_ROLE), &settings).expect("a URL");
        let app = users::App::new(open, OpenOrders::local());
        let ((of_http, http), (of_grpc, grpc)) = (listen().await, listen().await);
        let router = users::router(app.clone());
        tokio::spawn(chassis::http::serve::serve(of_http, router, std::future::pending(), || {}));
        let routes = users::grpc::routes(app.clone()).await;
        tokio::spawn(chassis::grpc::serve(of_grpc, routes, std::future::pending()));
        Self { database, client: Client::at(http), http, grpc, app }
    }

    /// Registers Rosa Parks.
    pub async fn register(&self) -> String {
        let rosa = json!({ "email": "rosa@example.org", "name": "Rosa Parks" });
        id(&self.client.post("/users").json(&rosa).await.expect(201).json())
    }

    /// Follows the feed of orders. What happens from now on arrives as an event.
    pub async fn follow(&self, orders: SocketAddr) {
        let (app, feed) = (self.app.clone(), Feed::new("orders", &orders.into()));
        tokio::spawn(async move { replica::follow(app, feed, Transport::<NoBroker>::Feed).await });
        dev::postgres::until(&mut self.database.owner().await, "select count(*) = 1 from users_cursors").await;
    }

    /// The variables of an orders that calls users in this way.
    pub fn variables(&self, via: &str) -> Vec<(&'static str, String)> {
        vec![
            ("ORDERS_DATABASE_URL", self.database.url_as(ORDERS_ROLE)),
            ("CUSTOMERS_VIA", via.to_owned()),
            ("USERS_URL", format!("http://{}", self.http)),
            ("USERS_GRPC_URL", format!("http://{}", self.grpc)),
        ]
    }
}

/// orders, as a program.
pub struct Orders {
    pub process: Leashed,
    pub client: Client,
    pub address: SocketAddr,
}

impl Orders {
    /// Starts it with these variables, and waits until it is ready.
    pub async fn start(variables: &[(&str, String)]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_orders")), variables).await
    }

    /// The same. Its log goes to a file.
    pub async fn start_with_log(variables: &[(&str, String)], log: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"exec "$0" 2>"$1""#, env!("CARGO_BIN_EXE_orders")]).arg(log);
        Self::run(command, variables).await
    }

    async fn run(mut command: Command, variables: &[(&str, String)]) -> Self {
        let address = free_address();
        command.current_dir(std::env::temp_dir());
        command.env("ORDERS_ADDR", address.to_string()).env("RUST_LOG", "error").env("OTEL_BSP_SCHEDULE_DELAY", "50");
        command.env("DATABASE_QUEUE_TIMEOUT", "20s");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut process = Leashed::start(&command, Signal::SIGTERM).expect("orders runs");
        let client = Client::at(address);
        until("orders is ready", async || {
            assert_eq!(process.ended().expect("known"), None, "orders ended");
            client.is_ready().await
        })
        .await;
        Self { process, client, address }
    }
}

/// The variables of a program that sends its traces to the collector over gRPC.
pub fn traced() -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector().grpc)),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ]
}

/// An order of this user.
pub fn order_of(user: &str) -> Value {
    json!({ "user_id": user, "currency": "EUR", "items": [{ "sku": "darjeeling", "quantity": 2, "unit_price_minor": 350 }] })
}

pub fn id(of: &Value) -> String {
    of["id"].as_str().expect("an id").to_owned()
}
