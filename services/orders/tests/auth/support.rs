//! What every test begins with.

use std::path::PathBuf;

use chassis::auth::{Auth, AuthConfig};
use chassis::remote::ServiceToken;
use clap::Parser;
use dev::http::Client;
use dev::issuer::{SigningKey, jwks, now};
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use orders::customers::{Customers, Users};
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use tempfile::TempDir;
use users::open_orders::OpenOrders;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "shop";
/// Every scope that reaches what is the caller's own.
pub const OWN: &str = "users:read users:write orders:read orders:write events:read";
/// Every scope that reaches everybody's.
pub const ANY: &str = "users:read:any users:write:any orders:read:any orders:write:any events:read";

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    auth: AuthConfig,
}

/// What these options ask for, on a service that listens at `address`.
pub async fn open_at(address: &str, options: &[(&str, &str)]) -> Result<Auth, String> {
    read(options).open(&[("TEST_ADDR", address.parse().expect("an address"))], None).await
}

fn read(options: &[(&str, &str)]) -> AuthConfig {
    let arguments = options.iter().map(|(name, value)| format!("--{name}={value}"));
    Options::try_parse_from(["test".to_owned()].into_iter().chain(arguments)).expect("options").auth
}

/// The token that a service shows to others with these options.
pub fn service_token(options: &[(&str, &str)]) -> Result<ServiceToken, String> {
    read(options).service_token()
}

/// [`open_at`] a loopback address.
pub async fn open(options: &[(&str, &str)]) -> Result<Auth, String> {
    open_at("127.0.0.1:8080", options).await
}

/// The keys of an issuer, in a file.
pub struct KeysFile {
    pub path: PathBuf,
    _folder: TempDir,
}

impl KeysFile {
    pub fn new(keys: &[&SigningKey]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = Self { path: folder.path().join("jwks.json"), _folder: folder };
        file.write(keys);
        file
    }

    pub fn write(&self, keys: &[&SigningKey]) {
        std::fs::write(&self.path, jwks(keys.iter().copied()).to_string()).expect("written");
    }

    /// Callers whose tokens these keys have signed.
    pub async fn auth(&self) -> Auth {
        self.try_auth().await.expect("keys")
    }

    pub async fn try_auth(&self) -> Result<Auth, String> {
        let path = self.path.to_str().expect("text");
        open(&[("auth", "jwt"), ("auth-jwks-file", path), ("auth-issuer", ISSUER), ("auth-audience", AUDIENCE)]).await
    }
}

/// The claims of a good token.
pub fn claims(subject: &str, scope: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope, "exp": now() + 600 })
}

/// Both services, on the shared database and under the dial `local`.
pub struct Pair {
    pub users: Client,
    pub orders: Client,
    pub key: SigningKey,
    _database: TestDatabase,
}

impl Pair {
    pub async fn start() -> Self {
        let key = SigningKey::eddsa("one");
        let file = KeysFile::new(&[&key]);
        let (users, orders, database) = services(file.auth().await);
        Self { users, orders, key, _database: database }
    }

    /// A token of this subject.
    pub fn token(&self, subject: &str, scope: &str) -> String {
        self.key.token(&claims(subject, scope))
    }

    pub fn users_as(&self, subject: &str, scope: &str) -> Client {
        self.users.bearing(self.token(subject, scope))
    }

    pub fn orders_as(&self, subject: &str, scope: &str) -> Client {
        self.orders.bearing(self.token(subject, scope))
    }

    /// A new user.
    pub async fn register(&self, name: &str) -> String {
        let body = json!({ "email": format!("{name}@example.org"), "name": name });
        id(&self.users_as("admin", ANY).post("/users").json(&body).await.expect(201).json())
    }

    /// A new order of this user.
    pub async fn place(&self, user: &str) -> String {
        id(&self.orders_as("admin", ANY).post("/orders").json(&order_of(user)).await.expect(201).json())
    }
}

/// The services for the callers that `auth` admits.
pub fn services(auth: Auth) -> (Client, Client, TestDatabase) {
    let database = TestDatabase::create();
    let open = |role, name| Database::new(&database.url_as(role), &settings(name)).expect("a URL");
    let away = "http://127.0.0.1:9".parse().expect("a URL");
    let users = users::App::new(open(USERS_ROLE, "users"), OpenOrders::local()).for_callers(auth.clone());
    let customers = Customers::local(Users::http(&away, chassis::remote::Limits::default()));
    let orders = orders::App::new(open(ORDERS_ROLE, "orders"), customers).for_callers(auth);
    (Client::router(users::router(users)), Client::router(orders::router(orders)), database)
}

/// The usual settings, but with patience for a machine that has much else to do.
pub fn settings(name: &'static str) -> Settings {
    Settings::new(name, 5).with_patience(std::time::Duration::from_secs(40))
}

pub fn order_of(user: &str) -> Value {
    json!({ "user_id": user, "currency": "EUR", "items": [{ "sku": "tea", "quantity": 2, "unit_price_minor": 350 }] })
}

/// The id of what was answered.
pub fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}
