//! One trace, from a client through both services and their databases; and behind the event, another one.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

use crate::collector::Seen;
use crate::support::{Caller, Orders, Users, collector, id, order_of, traced};

/// The one span of a trace with this name.
#[track_caller]
fn only<'a>(spans: &'a [Seen], service: &str, name: &str) -> &'a Seen {
    let found: Vec<&Seen> = spans.iter().filter(|span| (span.service(), span.name()) == (service, name)).collect();
    assert_eq!(
        found.len(),
        1,
        "{service} {name} in {:#?}",
        spans.iter().map(|it| (it.service(), it.name())).collect::<Vec<_>>()
    );
    found[0]
}

#[track_caller]
fn assert_statement(span: &Seen, of: &Seen, operation: &str) {
    assert_eq!((span.kind(), span.parent()), (SpanKind::Client, of.id()), "{span:?}");
    let said = span.has(["db.system.name", "db.operation.name", "db.query.summary"]);
    assert_eq!(said, ["postgresql".to_owned(), operation.to_owned(), span.name().to_owned()]);
}

/// The event of the order, in its history and in the feed.
async fn traceparents(orders: &Orders, order: &str) -> Vec<String> {
    let history = orders.client.get(format!("/orders/{order}/events")).await.expect(200).json()["items"].clone();
    let feed = orders.client.get("/events?limit=1000").await.expect(200).json();
    let of = |events: &Value| {
        let events = events.as_array().expect("events").iter();
        let mine = events.filter(|event| event["subject"].as_str() == Some(order));
        mine.map(|event| event["traceparent"].as_str().expect("a traceparent").to_owned()).collect::<Vec<_>>()
    };
    [of(&history), of(&feed)].concat()
}

/// The span of the request to orders, and the one by which it called users.
#[track_caller]
fn check_request(spans: &[Seen], caller: &Caller, method: Option<&str>) -> Seen {
    let request = only(spans, "orders", "POST /orders");
    assert_eq!((request.kind(), request.parent()), (SpanKind::Server, caller.span.clone()));
    let said = request.has(["http.request.method", "http.route", "url.path", "url.scheme", "http.response.status_code"]);
    assert_eq!(said, ["POST", "/orders", "/orders", "http", "201"]);
    assert_statement(
        only(spans, "orders", "INSERT orders SELECT orders INSERT order_items INSERT order_events SELECT customers"),
        request,
        "INSERT",
    );

    let name = method.unwrap_or("GET /users/{id}");
    let of_service = |service: &str| only(spans, service, name);
    let (call, answer) = (of_service("orders"), of_service("users"));
    assert_eq!((call.kind(), call.parent()), (SpanKind::Client, request.id()));
    assert_eq!((answer.kind(), answer.parent()), (SpanKind::Server, call.id()));
    assert_statement(only(spans, "users", "SELECT users"), answer, "SELECT");
    for span in [call, answer] {
        match method {
            Some(method) => {
                let said = span.has(["rpc.system.name", "rpc.method", "rpc.response.status_code"]);
                assert_eq!(said, ["grpc", method, "OK"]);
            }
            None => assert_eq!(span.has(["http.request.method", "http.response.status_code"]), ["GET", "200"]),
        }
    }
    assert!(call.attributes().contains_key("server.port"), "{call:?}");
    request.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_a_client_through_both_services_and_their_databases_and_the_event_leads_on() {
    for (via, method) in [("http", None), ("grpc", Some("users.v1.Users/GetUser"))] {
        let users = Users::start().await;
        let rosa = users.register().await;
        let orders = Orders::start(&[users.variables(via), traced()].concat()).await;
        users.follow(orders.address).await;
        let caller = Caller::new();
        let placing = orders.client.post("/orders").json(&order_of(&rosa)).header("traceparent", caller.traceparent(true));
        let order = id(&placing.await.expect(201).json());

        // The consumer has a trace of its own, linked to the request.
        let is_linked = |span: &Seen| span.links().iter().any(|(trace, _)| *trace == caller.trace);
        let consumer = collector().until("the event was consumed", is_linked).await;
        assert_eq!((consumer.service(), consumer.name(), consumer.kind()), ("users", "process orders", SpanKind::Consumer));
        assert_eq!((consumer.parent(), consumer.has_failed()), (String::new(), false));
        let said = consumer.has(["messaging.system", "messaging.operation.type", "messaging.batch.message_count"]);
        assert_eq!(said, ["feed", "process", "1"]);
        collector().until("the request's span", |span| span.trace() == caller.trace && span.name() == "POST /orders").await;

        let spans = collector().of(&caller.trace);
        let request = check_request(&spans, &caller, method);
        assert_eq!(consumer.links(), [(caller.trace.clone(), request.id())]);
        let expected = format!("00-{}-{}-01", caller.trace, request.id());
        assert_eq!(traceparents(&orders, &order).await, [expected.clone(), expected]);
        let consumed = collector().of(&consumer.trace());
        assert_statement(only(&consumed, "users", "INSERT open_orders_replica"), &consumer, "INSERT");
        assert_statement(only(&consumed, "users", "INSERT users_cursors"), &consumer, "INSERT");

        check_processes(&spans);
        // Neither a person, nor what that person has ordered, nor an id in a path.
        let said = format!("{spans:?}{consumed:?}");
        for value in ["osa@example", "Rosa", "Parks", "darjeeling", "EUR", &rosa] {
            assert!(!said.contains(value), "{value} in {said}");
        }
    }
}

/// Each process says who it is.
fn check_processes(spans: &[Seen]) {
    let of = |service: &str| spans.iter().find(|span| span.service() == service).expect("a span").resource.clone();
    let (users, orders) = (of("users"), of("orders"));
    assert_eq!((&*users["service.version"], &*orders["service.version"]), ("9.8.7", env!("CARGO_PKG_VERSION")));
    assert_ne!(users["service.instance.id"], orders["service.instance.id"]);
    assert_eq!(orders["telemetry.sdk.language"], "rust");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_connection_is_a_span() {
    let users = Users::start().await;
    let rosa = users.register().await;
    let one = vec![("DATABASE_MAX_CONNECTIONS", "1".to_owned())];
    let orders = Orders::start(&[users.variables("local"), traced(), one].concat()).await;
    let mut owner = users.database.owner().await;
    sqlx::query("begin").execute(&mut owner).await.expect("begun");
    sqlx::query("update users set name = name").execute(&mut owner).await.expect("locked");
    // Each waits for the user's row, with the only connection.
    let (client, body) = (orders.client.clone(), order_of(&rosa));
    let blocked = tokio::spawn(async move {
        loop {
            client.post("/orders").json(&body).await.problem(503, "");
        }
    });
    loop {
        let caller = Caller::new();
        orders.client.get("/orders").header("traceparent", caller.traceparent(true)).await.expect(200);
        let request = collector().until("the request", |span| span.parent() == caller.span).await;
        let spans = collector().of(&caller.trace);
        assert_statement(only(&spans, "orders", "SELECT orders customers SELECT order_items"), &request, "SELECT");
        if let Some(wait) = spans.iter().find(|span| span.name() == "wait for a connection") {
            assert_eq!((wait.kind(), wait.parent()), (SpanKind::Internal, request.id()));
            break;
        }
        // It came between two of the others.
        assert!(!blocked.is_finished());
    }
    blocked.abort();
}
