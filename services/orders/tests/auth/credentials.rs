//! A service whose token comes from an issuer, by client credentials.

use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::remote::{Http, ServiceToken};
use dev::issuer::{SigningKey, now};
use dev::postgres::{TestDatabase, USERS_ROLE};
use dev::process::free_address;
use dev::wait::until;
use serde_json::{Value, json};
use shared_db::Database;
use tempfile::TempDir;
use tokio::net::TcpListener;
use users::open_orders::OpenOrders;

use crate::issuer::Issuer;
use crate::support::{KeysFile, claims, open, service_token, settings};
use crate::together::PATIENT;

/// A secret, in a file.
pub struct SecretFile {
    path: PathBuf,
    _folder: TempDir,
}

impl SecretFile {
    pub fn new(secret: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, format!("{secret}\n")).expect("written");
        Self { path, _folder: folder }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("text")
    }
}

/// The token of the service `orders`, from this issuer, which its document finds.
pub fn token_of(issuer: &str, secret: &SecretFile) -> ServiceToken {
    let options = [("service-token-client-id", "orders"), ("service-token-client-secret-file", secret.path())];
    service_token(&[&options[..], &[("auth-issuer", issuer)]].concat()).expect("a token")
}

/// What an issuer answers that gives a token.
pub fn granted(token: &str, seconds: u64) -> Value {
    json!({ "access_token": token, "token_type": "Bearer", "expires_in": seconds })
}

/// users, for whom these keys have signed, and the token of its caller.
async fn users(keys: &KeysFile) -> (TestDatabase, SocketAddr) {
    let database = TestDatabase::create();
    let opened = Database::new(&database.url_as(USERS_ROLE), &settings("users")).expect("a URL");
    let app = users::App::new(opened, OpenOrders::local()).for_callers(keys.auth().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(chassis::http::serve::serve(listener, users::router(app), std::future::pending(), || {}));
    (database, address)
}

/// How a call with this token is answered.
async fn status(users: &Http) -> u16 {
    users.get("/users").await.map_or(0, |answer| answer.status.as_u16())
}

#[tokio::test]
async fn a_token_is_fetched_and_again_before_it_ends() {
    let (key, secret) = (SigningKey::es256("one"), SecretFile::new("s3 cret:%"));
    let (_database, address) = users(&KeysFile::new(&[&key])).await;
    let issuer = Issuer::start(&[]).await;
    let token = || key.token(&claims("orders", "users:read:any"));
    issuer.grant(200, granted(&token(), 4));
    let users = Http::new("users", &address.into(), PATIENT).showing(token_of(&issuer.url(), &secret));
    for _ in 0..3 {
        assert_eq!(status(&users).await, 200);
    }
    // HTTP Basic with both parts encoded as a form: `orders`, and `s3+cret%3A%25`.
    let expected =
        ("Basic b3JkZXJzOnMzK2NyZXQlM0ElMjU=", "application/x-www-form-urlencoded", "grant_type=client_credentials");
    let asked = issuer.asked();
    let asked: Vec<_> = asked.iter().map(|(basic, kind, body)| (&**basic, &**kind, &**body)).collect();
    assert_eq!(asked, [expected]);
    // It fetches by itself: nobody calls. The issuer says nothing of the time, but the token does.
    let mut ending = claims("orders", "users:read:any");
    ending["exp"] = json!(now() + 4);
    let answer = json!({ "access_token": key.token(&ending), "token_type": "bearer", "scope": "users:read:any" });
    issuer.grant(200, answer);
    until("a token is fetched before the first ends", async || issuer.asked().len() >= 2).await;
    issuer.grant(200, granted(&token(), 3600));
    until("another one before the second ends", async || issuer.asked().len() >= 3).await;
    assert_eq!(status(&users).await, 200);
}

#[tokio::test]
async fn an_issuer_that_is_away_or_refuses_is_asked_again() {
    let (key, secret, address) = (SigningKey::eddsa("one"), SecretFile::new("secret"), free_address());
    let (_database, users_at) = users(&KeysFile::new(&[&key])).await;
    let users = Http::new("users", &users_at.into(), PATIENT).showing(token_of(&format!("http://{address}"), &secret));
    assert_eq!(status(&users).await, 401, "without a token");
    let issuer = Issuer::start_at(address, &[]).await;
    issuer.grant(401, json!({ "error": "invalid_client" }));
    until("it asks", async || !issuer.asked().is_empty()).await;
    issuer.grant(200, json!({ "access_token": "secret", "token_type": "mac" }));
    assert_eq!(status(&users).await, 401);
    issuer.grant(200, granted(&key.token(&claims("orders", "users:read:any")), 3600));
    until("it has a token", async || status(&users).await == 200).await;
    drop(issuer);
    assert_eq!(status(&users).await, 200, "the token is still valid");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced() {
    let (old, new, secret) = (SigningKey::eddsa("old"), SigningKey::eddsa("new"), SecretFile::new("secret"));
    let keys = KeysFile::new(&[&old]);
    let (_database, address) = users(&keys).await;
    let issuer = Issuer::start(&[]).await;
    issuer.grant(200, granted(&old.token(&claims("orders", "users:read:any")), 3600));
    let users = Http::new("users", &address.into(), PATIENT).showing(token_of(&issuer.url(), &secret));
    assert_eq!(status(&users).await, 200);
    // The old key has leaked, and is taken back at once.
    issuer.grant(200, granted(&new.token(&claims("orders", "users:read:any")), 3600));
    keys.write(&[&new]);
    until("the token is refused", async || status(&users).await == 401).await;
    until("there is a new one", async || status(&users).await == 200).await;
}

#[tokio::test]
async fn variables_that_contradict_each_other_are_named() {
    let secret = SecretFile::new("secret");
    let (id, file) = (("service-token-client-id", "orders"), ("service-token-client-secret-file", secret.path()));
    let issuer = ("auth-issuer", "https://issuer.example");
    for (options, named) in [
        (&[id, file][..], "SERVICE_TOKEN_URL"),
        (&[id, issuer], "SERVICE_TOKEN_CLIENT_SECRET_FILE"),
        (&[file, issuer], "SERVICE_TOKEN_CLIENT_ID"),
        (&[id, file, issuer, ("service-token-file", "token")], "SERVICE_TOKEN_FILE"),
        (&[id, file, ("service-token-url", "http://issuer.example/token")], "SERVICE_TOKEN_URL"),
        (&[id, file, ("auth-issuer", "http://issuer.example")], "AUTH_ISSUER"),
        (&[id, issuer, ("service-token-client-secret-file", "/nowhere")], "SERVICE_TOKEN_CLIENT_SECRET_FILE"),
    ] {
        let message = open(options).await.expect_err(named);
        assert!(message.contains(named), "{named} in {message}");
    }
}
