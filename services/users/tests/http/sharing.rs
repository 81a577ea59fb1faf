//! One locked row, one client or one change of the schema does not take the service from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dev::http::{Answer, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Service, at_once, execute, id, path, person, start};

impl Service {
    /// The processes of the server that serve the service.
    async fn backends(&self) -> i64 {
        self.number(
            "select coalesce(sum(pid), 0)::bigint from pg_stat_activity
             where datname = current_database() and application_name = 'users'",
        )
        .await
    }

    /// How many connections of the service wait for a lock.
    async fn blocked(&self) -> i64 {
        self.number(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = 'users' and wait_event_type = 'Lock'",
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_want_a_locked_row_take_a_part_of_the_connections_only() {
    let service = Service::start();
    let (hot, cold) = (service.register("hot").await, service.register("cold").await);
    let mut owner = service.database.owner().await;
    execute(&mut owner, &format!("begin; select from users where id = '{}' for update", id(&hot))).await;
    let patch = |number: i32| service.client.patch(path(&hot)).json(&json!({ "name": number.to_string() }));
    let blocked: Vec<_> = (0..30).map(|number| start(patch(number))).collect();
    service.until_blocked(2).await;
    for number in 0..20 {
        service.client.get(path(&hot)).await.expect(200);
        service.client.get(path(&cold)).await.expect(200);
        service.client.patch(path(&cold)).json(&json!({ "name": format!("cold {number}") })).await.expect(200);
        service.client.post("/users").json(&person(&format!("new{number}"))).await.expect(201);
        service.client.get("/health/ready").await.expect(200);
        assert_eq!(service.blocked().await, 2);
    }
    execute(&mut owner, "rollback").await;
    for blocked in blocked {
        blocked.await.expect("an answer").expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_locked_rows_leave_connections_for_reading_and_then_for_writing() {
    let service = Service::with(|settings| settings.lock_timeout = Duration::from_millis(100));
    let cold = service.register("cold").await;
    let mut hot = Vec::new();
    for number in 0..10 {
        hot.push(service.register(&format!("hot{number}")).await);
    }
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; select from users where email like 'hot%' for update").await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<()>> = hot
        .iter()
        .flat_map(|user| [path(user), path(user)])
        .map(|path| {
            let (client, over) = (service.client.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let answer = client.patch(&path).json(&json!({ "name": "Hot" })).await;
                    assert_eq!(answer.header("retry-after"), "1", "{}", answer.text());
                    answer.problem(503, "");
                }
            })
        })
        .collect();
    let waiting = "select (exists (select from pg_stat_activity
                                   where datname = current_database() and wait_event_type = 'Lock'))::int";
    service.until(waiting, 1).await;
    for number in 0..10 {
        service.client.get(path(&cold)).await.expect(200);
        service.client.get("/health/ready").await.expect(200);
        service.client.patch(path(&cold)).json(&json!({ "name": format!("cold {number}") })).await.expect(200);
        assert!(service.blocked().await <= 6);
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("unavailable all the time");
    }
    execute(&mut owner, "rollback").await;
    for user in &hot {
        service.client.patch(path(user)).json(&json!({ "name": "Hot" })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_costs_no_new_connection() {
    let service = Service::with(|settings| settings.max_connections = 2);
    let user = service.register("ada").await;
    // Both connections are open.
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; lock table users in access exclusive mode").await;
    let readers: Vec<_> = (0..2).map(|_| start(service.client.get(path(&user)))).collect();
    service.until_blocked(2).await;
    execute(&mut owner, "commit").await;
    for reader in readers {
        reader.await.expect("an answer").expect(200);
    }
    let before = service.backends().await;
    for number in 1..5 {
        execute(&mut owner, "begin; select from users for update").await;
        let gone = start(service.client.patch(path(&user)).json(&json!({ "name": number.to_string() })));
        service.until_blocked(1).await;
        gone.abort();
        let _ = gone.await;
        // While the statement runs, its connection belongs to it; the other one serves.
        service.client.get(path(&user)).await.expect(200);
        execute(&mut owner, "commit").await;
        service.until_blocked(0).await;
        // What it did is what it would have done for a client that had stayed.
        let name = number.to_string();
        service.until(&format!("select count(*) from users where name = '{name}'"), 1).await;
        for answer in at_once((0..8).map(|_| service.client.get(path(&user)))).await {
            assert_eq!(answer.expect(200).json()["name"], name);
        }
        assert_eq!(service.backends().await, before, "the connections are the same");
    }
}

/// Reads, lists, changes and follows, until told to stop: the answers.
fn load(client: &Client, user: &Value, over: &Arc<AtomicBool>) -> JoinHandle<Vec<Answer>> {
    let (client, path, over) = (client.clone(), path(user), over.clone());
    tokio::spawn(async move {
        let mut answers = Vec::new();
        while !over.load(Ordering::Relaxed) {
            answers.push(client.get(&path).await);
            answers.push(client.get("/users?limit=2").await);
            answers.push(client.patch(&path).json(&json!({ "name": answers.len().to_string() })).await);
            answers.push(client.get("/events?limit=2").await);
            answers.push(client.get(format!("{path}/events?limit=2")).await);
        }
        answers
    })
}

/// A statement that was prepared before such a change is refused by Postgres for as long as its connection lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_compatible_change_of_the_schema_under_load_costs_no_request() {
    let service = Service::start();
    let over = Arc::new(AtomicBool::new(false));
    let mut loads = Vec::new();
    for name in ["ada", "eve", "joe"] {
        loads.push(load(&service.client, &service.register(name).await, &over));
    }
    let mut owner = service.database.owner().await;
    for change in [
        "alter table users alter column email type varchar(254)",
        "alter table users alter column email type text",
        "alter table users add column nickname text",
        "alter table users add column points integer not null default 0",
        "alter table users alter column points type bigint",
        "alter table users alter column created_at type timestamptz(6)",
        "create index users_created on users (created_at)",
        "drop index users_created",
        "alter table user_events alter column type type varchar(100)",
        "alter table user_events add column note text",
        "create or replace function user_event_epoch() returns bigint
             language sql stable parallel safe as 'select 1::bigint'",
        "create or replace view customers as select id, name, status, version from users",
        "alter table users drop column points",
        "analyze users",
    ] {
        execute(&mut owner, change).await;
        // Every statement runs on every connection.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut answers = 0;
    for load in loads {
        for answer in load.await.expect("answers") {
            answer.expect(200);
            answers += 1;
        }
    }
    assert!(answers > 100, "{answers}");
}

/// As a pooler does that gives a connection another session.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_server_has_forgotten_are_prepared_again() {
    let service = Service::with(|settings| settings.max_connections = 1);
    let user = service.register("ada").await;
    service.get(&user).await;
    let forgetful = "create function forget() returns trigger language plpgsql as
                     $$ begin execute 'deallocate all'; return null; end $$;
                     create trigger forget after update on users for each statement execute function forget()";
    service.execute(forgetful).await;
    service.client.patch(path(&user)).json(&json!({ "name": "Ada" })).await.expect(200);
    service.client.get(path(&user)).await.expect(200);
    service.client.get("/users").await.expect(200);
}
