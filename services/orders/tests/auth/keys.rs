//! The keys of an issuer: read, read again, and away.

use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use chassis::auth::Auth;
use chassis::tls::{Listener, TlsConfig};
use clap::Parser;
use dev::http::Client;
use dev::issuer::{SigningKey, jwks, now};
use dev::process::free_address;
use dev::tls::{Authority, write};
use dev::wait::until;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::issuer::Issuer;
use crate::support::{AUDIENCE, KeysFile, claims, open, services};

fn of(issuer: &str, subject: &str) -> Value {
    json!({ "iss": issuer, "aud": AUDIENCE, "sub": subject, "scope": "users:read:any", "exp": now() + 600 })
}

async fn discovered(issuer: &str) -> Auth {
    open(&[("auth", "jwt"), ("auth-issuer", issuer), ("auth-audience", AUDIENCE)]).await.expect("a start")
}

async fn status(users: &Client, token: &str) -> u16 {
    users.bearing(token).get("/users").await.status
}

#[tokio::test]
async fn a_new_key_is_found_at_once_and_a_token_ends_with_its_key() {
    let (old, new) = (SigningKey::es256("old"), SigningKey::eddsa("new"));
    let issuer = Issuer::start(&[&old]).await;
    let (users, _, _database) = services(discovered(&issuer.url()).await);
    let [old_token, new_token] = [&old, &new].map(|key| key.token(&of(&issuer.url(), "service")));
    assert_eq!(status(&users, &old_token).await, 200);
    issuer.publish(&[&old, &new]);
    assert_eq!(status(&users, &new_token).await, 200);
    assert_eq!(status(&users, &old_token).await, 200);
    // The old key is taken back. The next unknown key makes the service see that.
    issuer.publish(&[&new]);
    let unknown = SigningKey::eddsa("unknown").token(&of(&issuer.url(), "service"));
    assert_eq!(status(&users, &unknown).await, 401);
    assert_eq!(status(&users, &old_token).await, 401);
    assert_eq!(status(&users, &new_token).await, 200);
}

#[tokio::test]
async fn many_tokens_of_unknown_keys_make_few_requests_of_the_issuer() {
    let key = SigningKey::eddsa("one");
    let issuer = Issuer::start(&[&key]).await;
    let (users, _, _database) = services(discovered(&issuer.url()).await);
    let before = issuer.reads();
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let token = SigningKey::eddsa(&format!("unknown {number}")).token(&of(&issuer.url(), "service"));
            tokio::spawn(users.bearing(token).get("/users").into_future())
        })
        .collect();
    for call in calls {
        call.await.expect("an answer").expect(401);
    }
    assert!(issuer.reads() <= before + 2, "{}", issuer.reads());
    assert_eq!(status(&users, &key.token(&of(&issuer.url(), "service"))).await, 200);
}

#[tokio::test]
async fn an_issuer_that_is_away_stops_only_tokens_whose_key_is_unknown() {
    let key = SigningKey::eddsa("one");
    let issuer = Issuer::start(&[&key]).await;
    let (url, address) = (issuer.url(), issuer.address);
    let (users, _, _database) = services(discovered(&url).await);
    drop(issuer);
    // One that was never seen before.
    assert_eq!(status(&users, &key.token(&of(&url, "new"))).await, 200);
    users.get("/health/ready").await.expect(200);
    let other = SigningKey::eddsa("other");
    let token = other.token(&of(&url, "service"));
    let away = users.bearing(&token).get("/users").await;
    assert_eq!(away.header("retry-after"), "1");
    away.problem(503, "");
    let _back = Issuer::start_at(address, &[&key, &other]).await;
    assert_eq!(status(&users, &token).await, 200);
}

#[tokio::test]
async fn a_service_starts_before_its_issuer_and_is_ready_with_it() {
    let address = free_address();
    let url = format!("http://{address}");
    let key = SigningKey::eddsa("one");
    let (users, _, _database) = services(discovered(&url).await);
    let token = key.token(&of(&url, "service"));
    assert_eq!(status(&users, &token).await, 503);
    users.get("/health/ready").await.expect(503);
    users.get("/health/live").await.expect(200);
    users.get("/users").await.expect(401);
    let _issuer = Issuer::start_at(address, &[&key]).await;
    until("the keys are read", async || users.get("/health/ready").await.status == 200).await;
    assert_eq!(status(&users, &token).await, 200);
}

#[tokio::test]
async fn an_issuer_speaks_for_itself_alone() {
    let key = SigningKey::eddsa("one");
    let issuer = Issuer::start(&[&key]).await;
    // The document says another name than the variable.
    let other = format!("{}/", issuer.url());
    let (users, _, _database) = services(discovered(&other).await);
    assert_eq!(status(&users, &key.token(&of(&other, "service"))).await, 503);
    for wrong in ["http://issuer.example", "ftp://127.0.0.1", "issuer"] {
        let options = [("auth", "jwt"), ("auth-issuer", wrong), ("auth-audience", AUDIENCE)];
        let error = open(&options).await.expect_err("refused");
        assert!(error.contains("AUTH_ISSUER must be https://"), "{error}");
    }
    let keys = format!("{}/keys", issuer.url());
    let auth = open(&[("auth", "jwt"), ("auth-jwks-url", &keys), ("auth-audience", AUDIENCE)]).await.expect("keys");
    let (users, _, _database) = services(auth);
    // Without AUTH_ISSUER, the keys say enough.
    assert_eq!(status(&users, &key.token(&of("https://anything", "service"))).await, 200);
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let (old, new) = (SigningKey::es256("same"), SigningKey::es256("same"));
    let file = KeysFile::new(&[&old]);
    let (users, _, _database) = services(file.auth().await);
    let [old, new] = [&old, &new].map(|key| (key, key.token(&claims("service", "users:read:any"))));
    assert_eq!((status(&users, &old.1).await, status(&users, &new.1).await), (200, 401));
    file.write(&[new.0]);
    until("the new key is read", async || status(&users, &new.1).await == 200).await;
    assert_eq!(status(&users, &old.1).await, 401);
    // A file that is being written, or is gone, changes nothing.
    std::fs::write(&file.path, "{\"keys\": [").expect("written");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(status(&users, &new.1).await, 200);
    std::fs::remove_file(&file.path).expect("removed");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(status(&users, &new.1).await, 200);
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_time() {
    let key = SigningKey::eddsa("one");
    let (users, _, _database) = services(KeysFile::new(&[&key]).auth().await);
    let mut short = claims("service", "users:read:any");
    // With the skew, it is valid for 2 s.
    short["exp"] = json!(now() - 58);
    let token = key.token(&short);
    assert_eq!(status(&users, &token).await, 200);
    assert_eq!(status(&users, &token).await, 200);
    until("the token has ended", async || status(&users, &token).await == 401).await;
}

#[derive(Parser)]
struct Tls {
    #[command(flatten)]
    tls: TlsConfig,
}

#[tokio::test]
async fn an_issuer_may_have_a_certificate_of_an_authority_of_ones_own() {
    let (folder, authority, key) = (tempfile::tempdir().expect("a folder"), Authority::new(), SigningKey::eddsa("one"));
    let (cert, private) = authority.issue().write(folder.path());
    let arguments = ["test".into(), "--tls-cert-file".into(), cert, "--tls-key-file".into(), private];
    let tls = Tls::parse_from(arguments).tls.serving().expect("files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}/keys", listener.local_addr().expect("an address"));
    let keys = jwks([&key]);
    let router = Router::new().route("/keys", get(async || Json(keys)));
    tokio::spawn(chassis::http::serve::serve(Listener::new(listener, tls), router, std::future::pending(), || {}));

    let token = key.token(&claims("service", "users:read:any"));
    let ca = write(folder.path(), "ca.pem", Authority::new().pem());
    let options = [("auth", "jwt"), ("auth-jwks-url", &*url), ("auth-audience", AUDIENCE)];
    let options = [&options[..], &[("auth-ca-file", ca.to_str().expect("text"))]].concat();
    let (users, _, _database) = services(open(&options).await.expect("a start"));
    assert_eq!(status(&users, &token).await, 503);
    // The file is read again when it changes.
    write(folder.path(), "ca.pem", authority.pem());
    until("the authority is known", async || status(&users, &token).await == 200).await;
}
