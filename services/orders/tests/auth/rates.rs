//! A limit on rates, with tokens: each subject has its own, wherever it calls from.

use chassis::http::limits::Limits;
use chassis::http::serve::serve_within;
use clap::Parser;
use dev::http::Client;
use dev::issuer::SigningKey;
use dev::postgres::{TestDatabase, USERS_ROLE};
use shared_db::Database;
use tokio::net::TcpListener;
use users::open_orders::OpenOrders;

use crate::support::{KeysFile, OWN, claims, settings};

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    limits: Limits,
}

#[tokio::test]
async fn each_subject_has_a_rate_of_its_own_and_who_has_no_token_that_of_the_address() {
    let (key, database) = (SigningKey::eddsa("one"), TestDatabase::create());
    let auth = KeysFile::new(&[&key]).auth().await;
    let opened = Database::new(&database.url_as(USERS_ROLE), &settings("users")).expect("a URL");
    let router = users::router(users::App::new(opened, OpenOrders::local()).for_callers(auth.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = Client::at(listener.local_addr().expect("an address"));
    // The rate of an hour, so that a slow machine earns no further request.
    let Options { limits } = Options::try_parse_from(["test", "--rate-limit=2/h"]).expect("options");
    tokio::spawn(async move { serve_within(&limits, auth, listener, router, std::future::pending(), || {}).await });
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
