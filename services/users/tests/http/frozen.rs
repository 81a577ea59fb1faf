//! A server of Postgres that keeps its connections and answers nothing.

use std::time::{Duration, Instant};

use dev::http::Client;
use dev::postgres::{Cluster, TestDatabase, USERS_ROLE, until};
use serde_json::json;
use shared_db::{Database, Settings};
use users::open_orders::OpenOrders;
use users::{App, router};

use crate::support::{at_once, id, path, person, start};
use crate::unavailable::{assert_all_unavailable, data_calls};

/// The service as in production, on `database`; with `next`, its tables may move there.
fn client(database: &TestDatabase, next: Option<&TestDatabase>) -> Client {
    let settings = Settings::new("users", 10);
    let mut of_users = Database::new(&database.url_as(USERS_ROLE), &settings).expect("a URL");
    if let Some(next) = next {
        of_users = of_users.moving("users", &next.url_as(USERS_ROLE), &settings).expect("a URL");
    }
    Client::router(router(App::new(of_users, OpenOrders::local())))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_frozen_every_request_is_answered_soon_and_then_all_works_again() {
    let cluster = Cluster::temporary().expect("a cluster");
    let (database, next) = (TestDatabase::on(&cluster), TestDatabase::on(&cluster));
    for next in [None, Some(&next)] {
        let client = client(&database, next);
        let name = if next.is_some() { "eve" } else { "ada" };
        let user = client.post("/users").json(&person(name)).await.expect(201).json();
        for answer in at_once((0..10).map(|_| client.get(path(&user)))).await {
            answer.expect(200);
        }
        // A process asks where its tables are if it did not within a second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let waiting = start(client.get("/events?wait=30&from=end"));
        let frozen = cluster.freeze().expect("a server");
        let begun = Instant::now();
        assert_all_unavailable(data_calls(&client, &user)).await;
        assert_all_unavailable([client.get("/health/ready")]).await;
        // Each is answered within 5 s; a second try finds new connections as silent. The rest is the machine's.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        client.get("/health/live").await.expect(200);
        drop(frozen);
        waiting.await.expect("an answer");
        // What still runs there ends by itself, and what was written is whole.
        let running = format!(
            "select not exists (select from pg_stat_activity
                                where application_name = 'users' and state <> 'idle')
                and (select version from users where id = '{id}')
                  = (select count(*) from user_events where user_id = '{id}')",
            id = id(&user),
        );
        until(&mut database.owner().await, &running).await;
        dev::wait::until("it works again", async || client.is_ready().await).await;
        client.get(path(&user)).await.expect(200);
        client.post(format!("{}/reactivate", path(&user))).await.expect(200);
        client.patch(path(&user)).json(&json!({ "name": "Ada Lovelace" })).await.expect(200);
    }
}
