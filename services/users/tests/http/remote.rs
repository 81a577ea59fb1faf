//! `OPEN_ORDERS_VIA=http`: orders is asked before a user is deactivated.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::remote::{Http, Limits};
use dev::http::Client;
use dev::postgres::USERS_ROLE;
use dev::wait::until;
use serde_json::json;
use shared_db::Database;
use tokio::net::TcpListener;
use users::open_orders::OpenOrders;
use users::{App, router};

use crate::support::{Service, id, settings};

/// What the orders service of the test answers: a count of open orders, or, below zero, that it cannot.
type Count = Arc<AtomicI64>;

async fn open_orders(State(count): State<Count>, uri: Uri) -> Response {
    let user_id = uri.query().and_then(|query| query.strip_prefix("user_id=")).expect("the user");
    match count.load(Ordering::Relaxed) {
        count @ 0.. => Json(json!({ "user_id": user_id, "open_count": count })).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn start() -> (Service, Count) {
    let (service, count, _) = start_with_orders().await;
    (service, count)
}

/// The same, and how the orders service is reached.
async fn start_with_orders() -> (Service, Count, Http) {
    let (mut service, count) = (Service::start(), Count::default());
    let orders = axum::Router::new().route("/open-orders", get(open_orders)).with_state(count.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(chassis::http::serve::serve(listener, orders, std::future::pending(), || {}));
    let patient = Duration::from_secs(40);
    let limits = Limits { connect: patient, attempt: patient, call: patient };
    let port = Http::new("orders", &address.into(), limits);
    let database = Database::new(&service.database.url_as(USERS_ROLE), &settings()).expect("a URL");
    service.client = Client::router(router(App::new(database, OpenOrders::remote(port.clone()))));
    (service, count, port)
}

#[tokio::test]
async fn a_user_is_deactivated_only_when_orders_says_that_none_is_open() {
    let (service, count) = start().await;
    let user = service.register("ada").await;
    let path = format!("/users/{}", id(&user));

    count.store(2, Ordering::Relaxed);
    service.client.delete(&path).await.problem(409, "open-orders");
    // Nobody knows: nothing is done, and the client is told to try again.
    count.store(-1, Ordering::Relaxed);
    let unavailable = service.client.delete(&path).await;
    assert_eq!(unavailable.header("retry-after"), "1");
    unavailable.problem(503, "");
    assert_eq!(service.client.get(&path).await.expect(200).json()["status"], "active");

    count.store(0, Ordering::Relaxed);
    // The breaker has seen failures, and may be open for a while.
    until("the user is deactivated", async || service.client.delete(&path).await.status == 204).await;
    assert_eq!(service.client.get(&path).await.expect(200).json()["status"], "deactivated");
    // Nothing is left to ask.
    count.store(-1, Ordering::Relaxed);
    service.client.delete(&path).await.expect(204);
}

/// How many comparisons came to this outcome. Metrics belong to the process, so one test has to do all of this.
async fn compared(client: &Client, outcome: &str) -> u64 {
    let metrics = client.get("/metrics").await.expect(200).text();
    let series = format!("open_orders_shadow_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn a_shadow_is_compared_and_never_changes_an_answer() {
    let (mut service, count, orders) = start_with_orders().await;
    let database = Database::new(&service.database.url_as(USERS_ROLE), &settings()).expect("a URL");
    service.client = Client::router(router(App::new(database, OpenOrders::local().shadowed_by(orders))));
    for (says, outcome) in [(0, "equal"), (3, "mismatch"), (-1, "error")] {
        count.store(says, Ordering::Relaxed);
        let user = service.register(outcome).await;
        service.client.delete(format!("/users/{}", id(&user))).await.expect(204);
        until(format!("{outcome} is counted"), async || compared(&service.client, outcome).await > 0).await;
    }
}
