//! Both services as servers, each with tokens, and what they say to each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chassis::auth::Auth;
use chassis::events::consumer::Feed;
use chassis::events::{NoBroker, Transport};
use chassis::remote::{Http, Limits, ServiceToken};
use dev::http::Client;
use dev::issuer::SigningKey;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use dev::wait::until;
use orders::customers::{Customers, Users};
use serde_json::{Value, json};
use shared_db::Database;
use tempfile::TempDir;
use tokio::net::TcpListener;
use users::open_orders::OpenOrders;

use crate::credentials::{SecretFile, granted, token_of};
use crate::issuer::Issuer;
use crate::support::{ANY, KeysFile, claims, id, order_of, settings};

/// Limits for a machine that has much else to do.
pub const PATIENT: Limits =
    Limits { connect: Duration::from_secs(20), attempt: Duration::from_secs(20), call: Duration::from_secs(45) };

/// A service's token, in a file.
struct TokenFile {
    path: PathBuf,
    _folder: TempDir,
}

impl TokenFile {
    fn new(token: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = Self { path: folder.path().join("token"), _folder: folder };
        file.write(token);
        file
    }

    fn write(&self, token: &str) {
        std::fs::write(&self.path, format!("{token}\n")).expect("written");
    }

    fn token(&self) -> ServiceToken {
        ServiceToken::in_file(&self.path)
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn serve(listener: TcpListener, router: axum::Router) {
    tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}));
}

fn open(database: &TestDatabase, role: &str, name: &'static str) -> Database {
    Database::new(&database.url_as(role), &settings(name)).expect("a URL")
}

/// Both services, in one database.
struct Pair {
    database: TestDatabase,
    key: SigningKey,
    auth: Auth,
    token: TokenFile,
    users: Client,
    users_at: SocketAddr,
    grpc_at: SocketAddr,
    orders_at: SocketAddr,
    of_orders: Option<TcpListener>,
    users_app: users::App,
}

impl Pair {
    /// Starts users, which asks orders by HTTP. The services' token has these scopes.
    async fn start(scope: &str) -> Self {
        let database = TestDatabase::create();
        let key = SigningKey::es256("one");
        let auth = KeysFile::new(&[&key]).auth().await;
        let token = TokenFile::new(&key.token(&claims("the other service", scope)));
        let ((of_users, users_at), (of_grpc, grpc_at)) = (listen().await, listen().await);
        let (of_orders, orders_at) = listen().await;
        let orders = Http::new("orders", &orders_at.into(), PATIENT).showing(token.token());
        let app = users::App::new(open(&database, USERS_ROLE, "users"), OpenOrders::remote(orders));
        let users_app = app.for_callers(auth.clone());
        serve(of_users, users::router(users_app.clone()));
        let routes = users::grpc::routes(users_app.clone()).await;
        tokio::spawn(chassis::grpc::serve(of_grpc, routes, std::future::pending()));
        let users = Client::at(users_at).bearing(key.token(&claims("admin", ANY)));
        let of_orders = Some(of_orders);
        Self { database, key, auth, token, users, users_at, grpc_at, orders_at, of_orders, users_app }
    }

    /// Starts orders with this port to users.
    fn start_orders(&mut self, customers: Customers) -> Client {
        let orders = orders::App::new(open(&self.database, ORDERS_ROLE, "orders"), customers);
        let listener = self.of_orders.take().expect("one orders");
        serve(listener, orders::router(orders.for_callers(self.auth.clone())));
        Client::at(self.orders_at).bearing(self.key.token(&claims("admin", ANY)))
    }

    fn port(&self, by: &str) -> Customers {
        let http = || Users::http(&self.users_at.into(), PATIENT).showing(self.token.token());
        match by {
            "local" => Customers::local(http()),
            "http" => Customers::remote(http()),
            _ => Customers::remote(Users::grpc(&self.grpc_at.into(), PATIENT).showing(self.token.token())),
        }
    }

    async fn register(&self, name: &str) -> String {
        let body = json!({ "email": format!("{name}@example.org"), "name": name });
        id(&self.users.post("/users").json(&body).await.expect(201).json())
    }
}

#[tokio::test]
async fn the_services_work_together_under_every_dial() {
    for dial in ["local", "http", "grpc"] {
        let mut pair = Pair::start("users:read:any orders:read:any").await;
        let orders = pair.start_orders(pair.port(dial));
        let (ada, eve) = (pair.register("ada").await, pair.register("eve").await);
        for user in [&ada, &eve] {
            orders.post("/orders").json(&order_of(user)).await.expect(201);
        }
        // One customer, and several at once.
        let order = orders.get(format!("/orders?user_id={ada}")).await.expect(200).json()["items"][0].clone();
        assert_eq!(order["customer"]["name"], "ada", "{dial}");
        let page = orders.get("/orders").await.expect(200).json();
        let names: Vec<&Value> = page["items"].as_array().expect("items").iter().map(|it| &it["customer"]["name"]).collect();
        assert_eq!(names, ["eve", "ada"], "{dial}");
        pair.users.delete(format!("/users/{ada}")).await.problem(409, "open-orders");
        orders.post(format!("/orders/{}/cancel", id(&order))).await.expect(200);
        pair.users.delete(format!("/users/{ada}")).await.expect(204);
    }
}

#[tokio::test]
async fn an_issuer_gives_a_service_its_token_for_every_dial() {
    for dial in ["http", "grpc"] {
        let mut pair = Pair::start("nothing").await;
        let (issuer, secret) = (Issuer::start(&[]).await, SecretFile::new("secret"));
        issuer.grant(200, granted(&pair.key.token(&claims("orders", "users:read:any")), 3600));
        let token = token_of(&issuer.url(), &secret);
        let users = match dial {
            "http" => Users::http(&pair.users_at.into(), PATIENT).showing(token),
            _ => Users::grpc(&pair.grpc_at.into(), PATIENT).showing(token),
        };
        let orders = pair.start_orders(Customers::remote(users));
        let ada = pair.register("ada").await;
        orders.post("/orders").json(&order_of(&ada)).await.expect(201);
        assert_eq!(issuer.asked().len(), 1, "{dial}");
    }
}

#[tokio::test]
async fn a_service_with_a_bad_token_is_one_that_gets_no_answer_until_its_file_has_a_good_one() {
    for dial in ["http", "grpc"] {
        // It has a scope, but not for everybody's users.
        let mut pair = Pair::start("users:read").await;
        let orders = pair.start_orders(pair.port(dial));
        let ada = pair.register("ada").await;
        let placing = || orders.post("/orders").json(&order_of(&ada));
        for token in [None, Some("nonsense".to_owned())] {
            if let Some(token) = token {
                pair.token.write(&token);
            }
            let refused = placing().await;
            assert_eq!(refused.header("retry-after"), "1");
            refused.problem(503, "");
            // users asks orders.
            pair.users.delete(format!("/users/{ada}")).await.problem(503, "");
        }
        pair.token.write(&pair.key.token(&claims("the other service", "users:read:any orders:read:any")));
        until("the new token is used", async || placing().await.status == 201).await;
        until("users uses it", async || pair.users.delete(format!("/users/{ada}")).await.status == 409).await;
    }
}

#[tokio::test]
async fn a_feed_is_followed_with_a_token_and_not_without() {
    let mut pair = Pair::start("orders:read:any events:read").await;
    let orders = pair.start_orders(pair.port("local"));
    let ada = pair.register("ada").await;
    orders.post("/orders").json(&order_of(&ada)).await.expect(201);
    let feed = Feed::new("orders", &pair.orders_at.into());
    feed.end().await.expect_err("no token");
    let feed = feed.showing(pair.token.token());
    feed.end().await.expect("a cursor");
    let app = pair.users_app.clone();
    tokio::spawn(async move { users::open_orders::replica::follow(app, feed, Transport::<NoBroker>::Feed).await });
    let mut owner = pair.database.owner().await;
    dev::postgres::until(&mut owner, "select count(*) = 1 from open_orders_replica where is_open").await;
    orders.post("/orders").json(&order_of(&ada)).await.expect(201);
    dev::postgres::until(&mut owner, "select count(*) = 2 from open_orders_replica where is_open").await;
}

#[tokio::test]
async fn an_event_says_whose_token_caused_it() {
    let mut pair = Pair::start("users:read:any orders:read:any").await;
    let orders = pair.start_orders(pair.port("http"));
    let ada = pair.register("ada").await;
    let own = |client: &Client| client.bearing(pair.key.token(&claims(&ada, crate::support::OWN)));
    own(&pair.users).patch(format!("/users/{ada}")).json(&json!({ "name": "Ada" })).await.expect(200);
    let order = id(&own(&orders).post("/orders").json(&order_of(&ada)).await.expect(201).json());
    orders.post(format!("/orders/{order}/pay")).await.expect(200);
    own(&orders).post(format!("/orders/{order}/cancel")).await.expect(200);
    pair.users.delete(format!("/users/{ada}")).await.expect(204);
    own(&pair.users).post(format!("/users/{ada}/reactivate")).await.expect(200);
    let actors = async |client: &Client, path: String| -> Vec<String> {
        let page = client.get(path).await.expect(200).json();
        let events = page.get("items").unwrap_or(&page).as_array().expect("events").clone();
        events.iter().map(|event| event["actor"].as_str().expect("an actor").to_owned()).collect()
    };
    let (admin, me) = ("admin", &*ada);
    assert_eq!(actors(&pair.users, format!("/users/{ada}/events")).await, [admin, me, admin, me]);
    assert_eq!(actors(&orders, format!("/orders/{order}/events")).await, [me, admin, me]);
    until("the feed has all", async || actors(&orders, "/events".to_owned()).await.len() == 3).await;
    assert_eq!(actors(&orders, "/events".to_owned()).await, [me, admin, me]);
}
