//! What the service does when users is away, slow or wrong, and how much it asks of it.

use std::time::Duration;

use chassis::remote::Limits;
use chassis::remote::breaker::FAILURES;
use dev::http::{Answer, Client};
use dev::postgres::ORDERS_ROLE;
use orders::customers::Customers;
use orders::{App, router};
use serde_json::Value;
use shared_db::Database;

use crate::dial::{NEIGHBOUR, PATIENT};
use crate::fake_users::{FakeUsers, Mode};
use crate::support::{Service, id, settings};

/// Limits that a neighbour who hangs exceeds soon.
const SHORT: Limits =
    Limits { connect: Duration::from_secs(1), attempt: Duration::from_secs(1), call: Duration::from_secs(3) };

/// The service with a users service that does as it is told.
async fn start(limits: Limits) -> (Service, FakeUsers) {
    let (mut service, users) = (Service::start().await, FakeUsers::start().await);
    service.client = instance(&service, &users, limits);
    (service, users)
}

/// A process of the service: its breaker has seen nothing yet.
fn instance(service: &Service, users: &FakeUsers, limits: Limits) -> Client {
    let database = Database::new(&service.database.url_as(ORDERS_ROLE), &settings(10)).expect("a URL");
    Client::router(router(App::new(database, Customers::remote(users.port(limits)))))
}

/// Where the breaker stands, as operators see it.
async fn breaker(client: &Client) -> String {
    let ready = client.get("/health/ready").await.expect(200).json();
    ready["circuit_breakers"][NEIGHBOUR].as_str().expect("a state").to_owned()
}

#[track_caller]
fn is_without_customer(answer: &Answer) {
    let order = answer.json();
    assert_eq!((&order["customer"], &order["customer_unavailable"]), (&Value::Null, &Value::Bool(true)), "{order}");
    assert!(!answer.headers.contains_key("etag"), "a tag of what is not known");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_users_does_not_answer_orders_are_read_without_customer_and_none_is_placed() {
    for mode in [Mode::Fails, Mode::Hangs, Mode::Babbles] {
        let (service, users) = start(SHORT).await;
        let key = "key-of-this-order";
        let order = service.client.post("/orders").header("idempotency-key", key).json(&service.order());
        let order = order.await.expect(201).json();
        assert_eq!(order["customer"]["name"], "Ada");
        assert!(order.get("customer_unavailable").is_none(), "{order}");
        users.now(mode);

        is_without_customer(&service.client.get(format!("/orders/{}", id(&order))).await.expect(200));
        let moment = order["placed_at"].as_str().expect("a time");
        is_without_customer(&service.client.get(format!("/orders/{}?as_of={moment}", id(&order))).await.expect(200));
        let page = service.client.get("/orders").await.expect(200).json();
        assert_eq!(page["items"][0]["customer_unavailable"], true, "{mode:?}: {page}");
        // Steps concern users no more.
        is_without_customer(&service.client.post(format!("/orders/{}/pay", id(&order))).await.expect(200));

        let refused = service.client.post("/orders").json(&service.order()).await;
        assert_eq!(refused.header("retry-after"), "1");
        refused.problem(503, "");
        assert_eq!(service.rows().await[0], 1, "{mode:?}");
        // The key is looked at first, whatever users says.
        let repeated =
            service.client.post("/orders").header("idempotency-key", key).json(&service.order()).await.expect(201);
        assert_eq!(repeated.header("idempotency-replayed"), "true");
        assert_eq!(repeated.json()["id"], order["id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_lets_one_probe_through_and_closes() {
    let (service, users) = start(SHORT).await;
    let order = service.place().await;
    let path = format!("/orders/{}", id(&order));
    assert_eq!(breaker(&service.client).await, "closed");

    users.now(Mode::Fails);
    while breaker(&service.client).await == "closed" {
        is_without_customer(&service.client.get(&path).await.expect(200));
    }
    users.seen();
    // Refused at once: the neighbour is left in peace.
    for _ in 0..50 {
        is_without_customer(&service.client.get(&path).await.expect(200));
    }
    assert!(users.seen().len() <= 1, "one probe at most, should a second have passed");
    let metrics = service.client.get("/metrics").await.expect(200).text();
    assert!(metrics.contains(&format!("circuit_breaker_state{{service=\"{NEIGHBOUR}\"}}")), "{metrics}");

    // A probe that hangs keeps all others out.
    users.now(Mode::Hangs);
    while users.seen().is_empty() {
        is_without_customer(&service.client.get(&path).await.expect(200));
    }
    users.now(Mode::Answers);
    let recovered = async {
        while service.client.get(&path).await.expect(200).json()["customer"].is_null() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("it closes again");
    assert_eq!(breaker(&service.client).await, "closed");
    service.client.post("/orders").json(&service.order()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_is_repeated_a_few_times_and_not_more() {
    let (service, users) = start(PATIENT).await;
    let order = service.place().await;
    let path = format!("/orders/{}", id(&order));
    users.seen();
    users.now(Mode::FailsFirst(2));
    assert_eq!(service.client.get(&path).await.expect(200).json()["customer"]["name"], "Ada");
    assert_eq!(users.seen().len(), 3);

    users.now(Mode::Fails);
    let fresh = instance(&service, &users, PATIENT);
    is_without_customer(&fresh.get(&path).await.expect(200));
    assert_eq!(users.seen().len(), 3, "three attempts, and that was it");
    // One call alone must not open the breaker.
    const { assert!(FAILURES > 3) };
}

#[tokio::test(flavor = "multi_thread")]
async fn repetitions_are_a_small_share_of_the_calls() {
    let (service, users) = start(PATIENT).await;
    let order = service.place().await;
    let path = format!("/orders/{}", id(&order));
    // Every service has a breaker of its own that would hide the budget, so half the calls succeed.
    let mut calls = 0;
    users.seen();
    for _ in 0..150 {
        users.now(Mode::FailsFirst(2));
        service.client.get(&path).await.expect(200);
        calls += 1;
    }
    let attempts = users.seen().len();
    assert!(attempts < calls * 2, "{attempts} attempts for {calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_asks_for_all_its_customers_in_one_call() {
    let (service, users) = start(PATIENT).await;
    for n in 0..3 {
        let user = uuid::Uuid::now_v7();
        service.add_user(user, &format!("U{n}")).await;
        for _ in 0..2 {
            service.client.post("/orders").json(&service.order_of(user)).await.expect(201);
        }
    }
    users.seen();
    let page = service.client.get("/orders?limit=100").await.expect(200).json();
    assert_eq!(page["items"].as_array().expect("items").len(), 6);
    let seen = users.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].ids.len(), 3, "each user once: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_own_ids_are_passed_on() {
    let (service, users) = start(PATIENT).await;
    let order = service.place().await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    users.seen();
    let call = service.client.get(format!("/orders/{}", id(&order)));
    call.header("x-request-id", "mine-1").header("traceparent", traceparent).await.expect(200);
    let made = service.client.get(format!("/orders/{}", id(&order))).header("traceparent", "nonsense").await.expect(200);
    let seen = users.seen();
    assert_eq!((seen[0].request_id.as_str(), seen[0].traceparent.as_deref()), ("mine-1", Some(traceparent)));
    assert_eq!((seen[1].request_id.as_str(), seen[1].traceparent.as_deref()), (made.header("x-request-id"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_the_service_does_not_know_or_has_deactivated_cannot_order() {
    // The real users service this time: its database says what is true, and no statement on orders has to.
    let service = Service::start().await;
    let mut stranger = service.order();
    stranger["user_id"] = uuid::Uuid::now_v7().to_string().into();
    service.client.post("/orders").json(&stranger).await.problem(422, "unknown-user");
    service.set_user_status(service.user, "deactivated").await;
    service.client.post("/orders").json(&service.order()).await.problem(409, "user-deactivated");
    assert_eq!(service.rows().await, [0, 0, 0]);
}
