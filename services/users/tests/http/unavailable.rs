//! A database that is busy, broken or gone: 503 in bounded time, and no more than that.

use std::future::IntoFuture;
use std::net::TcpListener;
use std::time::Duration;

use dev::http::{Answer, Call, Client};
use dev::postgres::{TestDatabase, USERS_ROLE};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operations::closed_url;
use crate::support::{Service, at_once, client, execute, path, person, settings, start};

/// One call for each route that needs the database, on this user.
pub fn data_calls(client: &Client, user: &Value) -> Vec<Call> {
    let path = path(user);
    vec![
        client.post("/users").json(&person("new")),
        client.get("/users"),
        client.get("/users?email=a@b"),
        client.get(format!("/users?id={}", Uuid::now_v7())),
        client.get(&path),
        client.patch(&path).json(&json!({ "name": "Ada" })),
        client.delete(&path),
        client.post(format!("{path}/reactivate")),
        client.get(format!("{path}/events")),
        client.get("/events"),
        client.get("/events?wait=30"),
    ]
}

/// The claim that this is a 503 that says when to come back, and nothing of the cause.
#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.header("retry-after"), "1");
    answer.clone().problem(503, "");
    let text = answer.text().to_lowercase();
    for cause in [
        "127.0.0.1",
        "localhost",
        "s3cret",
        "users_svc",
        "nowhere",
        "postgres",
        "sqlx",
        "select",
        "insert",
        "update ",
        "lock",
        "statement",
        "relation",
        "user_events",
        "pool",
        "refused",
        "os error",
        "57014",
        "terminat",
        "administrator",
    ] {
        assert!(!text.contains(cause), "{cause} in {text}");
    }
}

/// The claim that all of these are answered so, and that in bounded time, whatever the other limits are.
pub async fn assert_all_unavailable(calls: impl IntoIterator<Item = Call>) {
    let answers = tokio::time::timeout(Duration::from_secs(20), at_once(calls)).await.expect("answers in bounded time");
    for answer in answers {
        assert_unavailable(&answer);
    }
}

fn nobody() -> Value {
    json!({ "id": Uuid::now_v7() })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_every_route_that_needs_it_is_unavailable_and_the_others_work() {
    let client = client(&closed_url(), &settings());
    assert_all_unavailable(data_calls(&client, &nobody())).await;
    assert_all_unavailable([client.get("/health/ready")]).await;
    for path in ["/health/live", "/metrics", "/openapi.json", "/docs/"] {
        client.get(path).await.expect(200);
    }
    // What needs no database to be wrong is still the caller's to fix.
    client.get("/users?limit=0").await.problem(400, "");
    client.post("/users").json(&json!({})).await.problem(422, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_connections_and_says_nothing_is_unavailable() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("postgres://users_svc:s3cret@{}/nowhere", silent.local_addr().expect("an address"));
    let mut settings = settings();
    settings.acquire_timeout = Duration::from_millis(300);
    assert_all_unavailable(data_calls(&client(&url, &settings), &nobody())).await;
}

/// What an operator has yet to set right is no bug of the service's: it is not 500.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_set_up_is_unavailable_and_works_once_it_is() {
    let service = Service::start();
    let user = service.register("ada").await;
    // Without tables, as before the first migration.
    let empty = TestDatabase::empty();
    assert_all_unavailable(data_calls(&client(&empty.url_as(USERS_ROLE), &settings()), &user)).await;
    // Without rights.
    service.execute("revoke all on users, user_events, _sqlx_migrations from users_svc").await;
    assert_all_unavailable(data_calls(&service.client, &user)).await;
    service
        .execute(
            "grant select, insert, update on users to users_svc;
             grant select, insert on user_events to users_svc;
             grant select on _sqlx_migrations to users_svc",
        )
        .await;
    assert_eq!(service.get(&user).await, user);
    service.client.get("/health/ready").await.expect(200);
}

/// A standby during a failover takes no writes, but answers.
#[tokio::test]
async fn a_database_that_is_read_only_serves_reads_and_is_unavailable_for_writes() {
    let service = Service::start();
    let user = service.register("ada").await;
    let url = format!("{}%20-c%20default_transaction_read_only%3Don", service.database.url_as(USERS_ROLE));
    let client = client(&url, &settings());
    let ada = path(&user);
    for call in
        [client.post("/users").json(&person("new")), client.patch(&ada).json(&json!({ "name": "Ada" })), client.delete(&ada)]
    {
        assert_all_unavailable([call]).await;
    }
    assert_eq!(client.get(&ada).await.expect(200).json(), user);
    client.get("/users").await.expect(200);
    client.get("/events").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_every_connection_in_use_is_not_kept_waiting() {
    let service = Service::with(|settings| {
        settings.max_connections = 1;
        settings.acquire_timeout = Duration::from_secs(3);
    });
    let user = service.register("ada").await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; select from users for update").await;
    let blocked = start(service.client.patch(path(&user)).json(&json!({ "name": "Ada" })));
    service.until_blocked(1).await;
    assert_all_unavailable(data_calls(&service.client, &user)).await;
    // Health has a connection of its own.
    service.client.get("/health/ready").await.expect(200);
    assert!(!blocked.is_finished());
    execute(&mut owner, "commit").await;
    assert_eq!(blocked.await.expect("an answer").expect(200).json()["name"], "Ada");
    service.client.get(path(&user)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_to_be_had_in_time_is_unavailable_and_costs_no_connection() {
    let service = Service::with(|settings| {
        settings.max_connections = 1;
        settings.lock_timeout = Duration::from_millis(200);
    });
    let user = service.register("ada").await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; select from users for update").await;
    for call in [service.client.patch(path(&user)).json(&json!({ "name": "Ada" })), service.client.delete(path(&user))] {
        assert_all_unavailable([call]).await;
        assert_eq!(service.get(&user).await, user, "readers do not wait for a writer");
    }
    execute(&mut owner, "commit").await;
    service.client.patch(path(&user)).json(&json!({ "name": "Ada" })).await.expect(200);
    assert_eq!(service.history(&user).await.len(), 2, "what was not answered 200 was not done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_unavailable_and_costs_no_connection() {
    let service = Service::with(|settings| {
        settings.max_connections = 1;
        settings.statement_timeout = Duration::from_secs(2);
    });
    let user = service.register("ada").await;
    let connection = "select pid::bigint from pg_stat_activity
                      where datname = current_database() and application_name = 'users'";
    let before = service.number(connection).await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; lock table users, user_events in access exclusive mode").await;
    for call in [service.client.delete(path(&user)), service.client.get("/events?wait=30")] {
        assert_all_unavailable([call]).await;
    }
    execute(&mut owner, "commit").await;
    assert_eq!(service.get(&user).await, user);
    assert_eq!(service.number(connection).await, before, "the connection is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_no_connection_with_it() {
    let service = Service::with(|settings| settings.max_connections = 2);
    let user = service.register("ada").await;
    for number in 0..6 {
        let mut owner = service.database.owner().await;
        execute(&mut owner, "begin; select from users for update").await;
        let gone = start(service.client.patch(path(&user)).json(&json!({ "name": number.to_string() })));
        service.until_blocked(1).await;
        gone.abort();
        let _ = gone.await;
        // Both connections can be had again.
        for answer in at_once((0..8).map(|_| service.client.get(path(&user)))).await {
            answer.expect(200);
        }
        execute(&mut owner, "rollback").await;
        // The server learns of it only now that the statement goes on.
        service.until_blocked(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_connections_were_killed_one_request_fails_and_then_it_works_again() {
    const CONNECTIONS: usize = 8;
    let service = Service::with(|settings| settings.max_connections = CONNECTIONS);
    let user = service.register("ada").await;
    let connections = "from pg_stat_activity where datname = current_database() and application_name = 'users'";
    // As many connections are opened as requests wait.
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; lock table users in access exclusive mode").await;
    let blocked: Vec<_> = (0..CONNECTIONS).map(|_| start(service.client.get(path(&user)))).collect();
    service.until_blocked(CONNECTIONS as i64).await;
    execute(&mut owner, "commit").await;
    for blocked in blocked {
        blocked.await.expect("an answer").expect(200);
    }
    assert_eq!(service.number(&format!("select count(*) {connections}")).await, CONNECTIONS as i64);

    service.execute(&format!("select pg_terminate_backend(pid) {connections}")).await;
    service.until(&format!("select count(*) {connections}"), 0).await;
    let mut failed = 0;
    for _ in 0..CONNECTIONS * 3 {
        let answer = service.client.get(path(&user)).await;
        if answer.status != 200 {
            assert_unavailable(&answer);
            failed += 1;
        }
    }
    assert!(failed <= 1, "{failed} requests failed");
    service.client.patch(path(&user)).json(&json!({ "name": "Ada" })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_connection_is_killed_under_way_are_answered_and_leave_nothing_half_done() {
    // Five writes of one user at once need a pool of that size.
    let service = Service::with(|settings| settings.max_connections = 24);
    let user = service.register("ada").await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; select from users for update").await;
    let blocked: Vec<_> = (0..5)
        .map(|number: i32| start(service.client.patch(path(&user)).json(&json!({ "name": number.to_string() }))))
        .collect();
    service.until_blocked(5).await;
    service
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'users' and wait_event_type = 'Lock'",
        )
        .await;
    for blocked in blocked {
        assert_unavailable(&blocked.await.expect("an answer"));
    }
    execute(&mut owner, "commit").await;
    assert_eq!(service.get(&user).await, user);
    assert_eq!(service.history(&user).await.len(), 1);
    service.client.delete(path(&user)).await.expect(204);
}

/// The feed's waiting outlives many looks at the database: one that fails ends it at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_events_is_told_when_the_database_goes() {
    let service = Service::start();
    let waiting = tokio::spawn(service.client.get("/events?wait=30").into_future());
    let feed = "from pg_stat_activity
                where datname = current_database() and application_name = 'users' and query like '%pg_snapshot_xmin%'";
    service.until(&format!("select count(*) {feed}"), 1).await;
    service.execute("revoke select on user_events from users_svc").await;
    assert_unavailable(&waiting.await.expect("an answer"));
}
