//! What clients are told while the database cannot serve.

use std::sync::Arc;
use std::time::Duration;

use dev::http::{Answer, Call, Client};
use dev::postgres::{ORDERS_ROLE, TestDatabase};
use orders::router;
use serde_json::{Value, json};
use shared_db::{Settings, run};
use sqlx::Connection;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::operations::operations;
use crate::support::{Service, app, at_once, client, execute, id, sessions, settings, value};

/// Asserts that a client is told to try again, and nothing else.
#[track_caller]
fn assert_unavailable(answer: Answer) -> Value {
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    let problem = answer.problem(503, "");
    for secret in ["127.0.0.1", "refused", "postgres", "lock", "sqlx", "pool"] {
        assert!(!problem["detail"].as_str().is_some_and(|detail| detail.contains(secret)), "{problem}");
    }
    problem
}

/// A call of every operation that the service's document lists, right in all its parts.
async fn every_call(client: &Client) -> Vec<(String, Call)> {
    let order = json!({
        "user_id": Uuid::now_v7(),
        "currency": "EUR",
        "items": [{ "sku": "tea", "quantity": 1, "unit_price_minor": 1 }],
    });
    let document = client.get("/openapi.json").await.expect(200).json();
    let calls = operations(&document).into_iter().map(|(method, template)| {
        let path = template.replace("{id}", &Uuid::now_v7().to_string());
        let call = match (method.as_str(), path.as_str()) {
            ("GET", "/open-orders") => client.get(format!("{path}?user_id={}", Uuid::now_v7())),
            ("GET", _) => client.get(path),
            ("POST", "/orders") => client.post(path).json(&order),
            ("POST", _) => client.post(path),
            _ => panic!("{method} {path}"),
        };
        (template, call)
    });
    calls.collect()
}

#[tokio::test]
async fn without_a_database_everything_that_needs_it_is_503() {
    // Nothing listens on port 1; and a server that has no such database.
    let mut urls = vec!["postgres://orders_svc:password@127.0.0.1:1/none".to_owned()];
    let dropped = TestDatabase::create();
    urls.push(dropped.url_as(ORDERS_ROLE));
    drop(dropped);
    for url in urls {
        let client = client(&url, &Settings::new("orders", 2));
        let calls = every_call(&client).await;
        assert!(calls.len() > 10, "{}", calls.len());
        for (path, call) in calls {
            let answer = call.await;
            match path.as_str() {
                "/health/live" | "/metrics" => drop(answer.expect(200)),
                _ => drop(assert_unavailable(answer)),
            }
        }
        // What needs no database is judged as ever.
        client.get("/orders?limit=0").await.problem(400, "");
        client.post("/orders").json(&json!({})).await.problem(422, "");
        client.get("/orders/nope").await.problem(404, "");
        client.get("/nothing").await.problem(404, "");
        client.get("/docs/").await.expect(200);
    }
}

/// A statement that lasts until it is told to end.
async fn hold(held: &Notify, let_go: &Notify) -> Result<(), sqlx::Error> {
    held.notify_one();
    let_go.notified().await;
    Ok(())
}

/// No order is lost or made twice by it, either: the client that tries again with its key gets its order.
#[tokio::test]
async fn without_a_free_connection_a_request_is_answered_503_in_bounded_time() {
    let service = Service::start().await;
    let settings = Settings { acquire_timeout: Duration::from_secs(1), ..settings(1) };
    let app = app(&service.database.url_as(ORDERS_ROLE), &settings);
    let (database, client) = (app.database.clone(), Client::router(router(app)));
    let (held, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let holder = tokio::spawn({
        let (held, let_go) = (held.clone(), let_go.clone());
        // On a slow machine it may take more than a second to open.
        async move { while run!(database, _connection => hold(&held, &let_go)).await.is_err() {} }
    });
    held.notified().await;
    let place = || client.post("/orders").header("idempotency-key", "a").json(&service.order());
    client.get("/health/live").await.expect(200);
    // Health has a connection of its own.
    client.get("/health/ready").await.expect(200);
    for answer in at_once([client.get("/orders"), place(), client.get("/events")]).await {
        assert_unavailable(answer);
    }
    assert_eq!(service.rows().await, [0, 0, 0]);

    let_go.notify_one();
    holder.await.expect("given back");
    client.get("/health/ready").await.expect(200);
    place().await.expect(201);
    place().await.expect(201);
    assert_eq!(service.rows().await, [1, 1, 1]);
}

#[tokio::test]
async fn a_request_waits_for_a_lock_in_bounded_time() {
    let service = Service::start().await;
    let placed = service.place().await;
    let settings = Settings { lock_timeout: Duration::from_millis(50), ..settings(2) };
    let client = client(&service.database.url_as(ORDERS_ROLE), &settings);
    let mut owner = service.database.owner().await;
    let mut transaction = owner.begin().await.expect("a transaction");
    execute(&mut transaction, "lock table orders in access exclusive mode").await;
    assert_unavailable(client.post("/orders").json(&service.order()).await);
    assert_unavailable(client.post(format!("/orders/{}/pay", id(&placed))).await);
    assert_unavailable(client.get("/orders").await);
    transaction.rollback().await.expect("rolled back");
    let paid = client.post(format!("/orders/{}/pay", id(&placed))).await.expect(200).json();
    assert_eq!(paid["version"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_its_connections_were_killed_the_service_recovers_by_itself() {
    let service = Service::start().await;
    let order = service.place().await;
    let path = format!("/orders/{}", id(&order));
    let mut owner = service.database.owner().await;
    let ours = "application_name = 'orders'";
    let kill = format!(
        "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity where datname = current_database() and {ours}"
    );
    for _ in 0..3 {
        while sessions(&mut owner, ours).await < 2 {
            for answer in at_once((0..20).map(|_| service.client.get(&path))).await {
                answer.expect(200);
            }
        }
        let killed: i64 = value(&mut owner, &kill).await;
        assert!(killed >= 2, "{killed}");

        // One request finds out for all connections, not each for its own.
        let answer = service.client.get(&path).await;
        if answer.status != 200 {
            assert_unavailable(answer);
        }
        for _ in 0..20 {
            service.client.get(&path).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_service_is_ready_once_its_newest_migration_is_applied() {
    let service = Service::start().await;
    let newest = shared_db::newest_migration();
    let ready = async || service.client.get("/health/ready").await;
    assert_eq!(ready().await.expect(200).json()["status"], "ok");

    // A newer one is the next release's.
    let newer = "(29991231235959, 'the future', true, '', 0)";
    service
        .execute(&format!(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values {newer}"
        ))
        .await;
    ready().await.expect(200);

    service.execute(&format!("update _sqlx_migrations set success = false where version = {newest}")).await;
    let half_done = ready().await.problem(503, "");
    assert!(half_done["detail"].as_str().is_some_and(|detail| detail.contains(&newest.to_string())), "{half_done}");
    service.execute(&format!("delete from _sqlx_migrations where version = {newest}")).await;
    assert_eq!(ready().await.problem(503, ""), half_done);
    service.execute("drop table _sqlx_migrations").await;
    assert_eq!(ready().await.problem(503, ""), half_done);
    service.client.get("/health/live").await.expect(200);
}
