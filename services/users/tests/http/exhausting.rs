//! Many clients that wait, or leave, cost the database next to nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use dev::http::Client;
use dev::postgres::USERS_ROLE;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use users::router;

use crate::support::{Service, app, array, at_once, next, number, path, person, settings};

/// The transactions that this database has committed, and the sessions it has had. Sessions count when they have ended.
async fn totals(service: Service) -> (i64, i64) {
    let Service { client, database } = service;
    drop(client);
    let mut owner = database.owner().await;
    let open = "select not exists (select from pg_stat_activity
                                   where datname = current_database() and pid <> pg_backend_pid())";
    dev::postgres::until(&mut owner, open).await;
    let sum = |column| format!("select {column} from pg_stat_database where datname = current_database()");
    (number(&mut owner, &sum("xact_commit")).await, number(&mut owner, &sum("sessions")).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_thousand_long_polls_cost_a_few_statements_and_all_are_answered() {
    const SECONDS: i64 = 4;
    let service = Service::start();
    let end = next(&service.client.get("/events?from=end").await.expect(200)).expect("a cursor");
    let poll = format!("{end}&wait={SECONDS}");
    for round in 0..2 {
        for answer in at_once((0..2000).map(|_| service.client.get(&poll))).await {
            assert_eq!(array(&answer.expect(200).json()), Vec::<Value>::new(), "round {round}");
        }
    }
    let (transactions, _) = totals(service).await;
    assert!(transactions <= 10 * 2 * SECONDS, "{transactions} in {SECONDS} s, twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_answers_all_long_polls_by_one_statement() {
    let service = Service::start();
    let end = next(&service.client.get("/events?from=end").await.expect(200)).expect("a cursor");
    let mut waiting: Vec<_> =
        (0..500).map(|_| crate::support::start(service.client.get(format!("{end}&wait=30")))).collect();
    // These see other pages.
    waiting.push(crate::support::start(service.client.get("/events?wait=30")));
    waiting.push(crate::support::start(service.client.get(format!("{end}&wait=30&limit=1"))));
    let first = "select count(*) from pg_stat_activity
                 where datname = current_database() and query like '%order by epoch desc%' and pid <> pg_backend_pid()";
    service.until(first, 1).await;
    let user = service.register("ada").await;
    let mut links = BTreeSet::new();
    for answer in waiting {
        let answer = answer.await.expect("an answer").expect(200);
        assert_eq!(array(&answer.json())[0]["subject"], user["id"]);
        links.extend(next(&answer).map(|link| link.split("after=").nth(1).expect("a cursor").to_owned()));
    }
    let (transactions, _) = totals(service).await;
    assert!(transactions < 60, "{transactions}");
}

#[tokio::test]
async fn long_polls_above_the_limit_are_told_to_come_back() {
    let service = Service::start();
    let app = app(&service.database.url_as(USERS_ROLE), &settings());
    let wakeups = app.wakeups.at_most(1);
    let client = Client::router(router(app));
    let waiting = crate::support::start(client.get("/events?wait=30"));
    let first = "select count(*) from pg_stat_activity
                 where datname = current_database() and query like '%order by epoch desc%' and pid <> pg_backend_pid()";
    service.until(first, 1).await;
    let refused = client.get("/events?wait=30").await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "");
    client.get("/events").await.expect(200);
    wakeups.close();
    waiting.await.expect("an answer").expect(200);
    client.get("/events?wait=30").await.expect(200);
}

/// Sends a request, and leaves.
async fn leave(address: SocketAddr, request: String) {
    // The service may be slow to accept, and the client does not care.
    if let Ok(mut stream) = TcpStream::connect(address).await {
        let _ = stream.write_all(request.as_bytes()).await;
    }
}

/// A thousand clients that read or write and leave at once.
async fn leave_all(address: SocketAddr, user: &Value, round: usize) {
    let leaving = (0..1000).map(|number| {
        let request = if number % 4 == 0 {
            let body = person(&format!("gone{round}-{number}")).to_string();
            let length = body.len();
            format!(
                "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n\
                 {body}"
            )
        } else {
            format!("GET {} HTTP/1.1\r\nhost: users\r\n\r\n", path(user))
        };
        tokio::spawn(leave(address, request))
    });
    for gone in leaving.collect::<Vec<_>>() {
        gone.await.expect("gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_clients_that_leave_cost_no_connection_to_the_database() {
    const CONNECTIONS: usize = 4;
    let service = Service::with(|settings| settings.max_connections = CONNECTIONS);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut own = settings();
    own.max_connections = CONNECTIONS;
    let app = app(&service.database.url_as(USERS_ROLE), &own);
    let serving = tokio::spawn(chassis::http::serve::serve(listener, router(app), std::future::pending(), || {}));
    let staying = Client::at(address);
    // No connection is open yet; then some are busy; then all have been idle for so long that they are checked.
    let user = service.register("ada").await;
    for round in 0..3 {
        leave_all(address, &user, round).await;
        for answer in at_once((0..20).map(|_| staying.get(path(&user)))).await {
            answer.expect(200);
        }
        if round == 1 {
            tokio::time::sleep(Duration::from_millis(5100)).await;
        }
    }
    // What a write did is whole.
    let mut owner = service.database.owner().await;
    let idle = "select not exists (select from pg_stat_activity
                                   where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle')";
    dev::postgres::until(&mut owner, idle).await;
    let halves = "select count(*) from users full join user_events on user_id = users.id
                  where users.id is null or user_id is null";
    assert_eq!(number(&mut owner, halves).await, 0);
    drop(owner);
    serving.abort();
    let _ = serving.await;
    let (_, sessions) = totals(service).await;
    // Those of the pool, that of `register`, and the three of this test.
    assert!(sessions <= CONNECTIONS as i64 + 4, "{sessions}");
}
