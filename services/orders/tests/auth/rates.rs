//! A limit on rates, with tokens: each subject has its own, wherever it calls from.

use axum::http::Method;
use chassis::auth::Auth;
use chassis::http::cors::Cors;
use chassis::http::limits::Limits;
use chassis::http::serve::serve_within;
use clap::Parser;
use dev::http::Client;
use dev::issuer::SigningKey;
use dev::postgres::{TestDatabase, USERS_ROLE};
use shared_db::Database;
use tokio::net::TcpListener;
use users::open_orders::OpenOrders;

use crate::issuer::Issuer;
use crate::support::{AUDIENCE, KeysFile, OWN, claims, open, settings};

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    cors: Cors,
}

/// The service users with two requests an hour, so that a slow machine earns no further one.
async fn limited(database: &TestDatabase, auth: Auth) -> Client {
    let opened = Database::new(&database.url_as(USERS_ROLE), &settings("users")).expect("a URL");
    let router = users::router(users::App::new(opened, OpenOrders::local()).for_callers(auth.clone()));
    let Options { limits, cors } =
        Options::try_parse_from(["test", "--rate-limit=2/h", "--cors-origins=https://shop.example"]).expect("options");
    let (listener, router) = (TcpListener::bind("127.0.0.1:0").await.expect("a port"), cors.allow(router));
    let client = Client::at(listener.local_addr().expect("an address"));
    tokio::spawn(async move { serve_within(&limits, auth, listener, router, std::future::pending(), || {}).await });
    client
}

#[tokio::test]
async fn each_subject_has_a_rate_of_its_own_and_who_has_no_token_that_of_the_address() {
    let (key, database) = (SigningKey::eddsa("one"), TestDatabase::create());
    let client = limited(&database, KeysFile::new(&[&key]).auth().await).await;
    let user = |id: u8| format!("0198c0de-0000-7000-8000-0000000000{id:02}");
    let of = |id: u8| client.bearing(key.token(&claims(&user(id), OWN)));
    // Two tokens of one subject are one client, and the first request of a token counts as the later ones do.
    let (ada, also_ada, eve) = (of(1), client.bearing(key.token(&claims(&user(1), "users:read"))), of(2));
    assert_eq!(ada.get("/users").await.expect(200).header("ratelimit"), "\"default\";r=1;t=1800");
    assert_eq!(also_ada.get("/users").await.expect(200).header("ratelimit"), "\"default\";r=0;t=3600");
    for client in [&ada, &also_ada] {
        let refused = client.get("/users").await;
        assert!((1500..=1800).contains(&refused.header("retry-after").parse::<u32>().expect("seconds")));
        refused.problem(429, "");
    }
    // Subjects that nobody has signed share the rate of the address, with those who have no token.
    let strangers = [client.bearing("invented"), client.bearing(SigningKey::eddsa("one").token(&claims(&user(1), OWN)))];
    for stranger in &strangers {
        stranger.get("/users").await.problem(401, "");
    }
    for stranger in strangers.iter().chain([&client]) {
        stranger.get("/users").await.problem(429, "");
    }
    assert_eq!(eve.get("/users").await.expect(200).header("ratelimit"), "\"default\";r=1;t=1800");
}

#[tokio::test]
async fn a_token_of_an_unknown_key_has_one_look_and_a_refused_one_none() {
    let (issuer, database) = (Issuer::start(&[&SigningKey::eddsa("one")]).await, TestDatabase::create());
    let keys = format!("{}/keys", issuer.url());
    let auth = open(&[("auth", "jwt"), ("auth-jwks-url", &keys), ("auth-audience", AUDIENCE)]).await.expect("keys");
    let client = limited(&database, auth).await;
    let (unknown, before) = (client.bearing(SigningKey::eddsa("unknown").token(&claims("service", OWN))), issuer.reads());
    for looks in 1..=2 {
        unknown.get("/users").await.problem(401, "");
        assert_eq!(issuer.reads(), before + looks);
    }
    unknown.get("/users").await.problem(429, "");
    assert_eq!(issuer.reads(), before + 2);
}

#[tokio::test]
async fn an_answer_above_the_rate_has_what_other_answers_have() {
    let database = TestDatabase::create();
    let client = limited(&database, Auth::off()).await;
    for expected in [200, 200, 429] {
        let answer = client.get("/users").header("origin", "https://shop.example").header("x-request-id", "mine").await;
        for (name, value) in [
            ("access-control-allow-origin", "https://shop.example"),
            ("x-content-type-options", "nosniff"),
            ("x-request-id", "mine"),
        ] {
            assert_eq!(answer.header(name), value, "{expected}");
        }
        assert!(answer.header("access-control-expose-headers").contains("ratelimit"), "{expected}");
        assert_eq!(answer.status, expected);
    }
    // Without it, a browser would not show the page that it is above the rate.
    let preflight = client.call(Method::OPTIONS, "/users").header("origin", "https://shop.example");
    let preflight = preflight.header("access-control-request-method", "GET").await.expect(200);
    assert!(!preflight.headers.contains_key("retry-after"));
}
