//! The listener of operators, and what browsers are told.

use axum::http::Method;
use dev::http::Client;
use dev::postgres::{TestDatabase, USERS_ROLE};
use dev::process::free_address;
use dev::wait::until;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::operations::closed_url;
use crate::program::Program;
use crate::support::Service;

/// The path at which a route of the table answers.
fn path(route: &str) -> String {
    route.replace("/docs", "/docs/")
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_have_a_listener_of_their_own() {
    let database = TestDatabase::create();
    let (admin, url) = (free_address(), database.url_as(USERS_ROLE));
    let mut program = Program::start(&[("USERS_DATABASE_URL", &url), ("ADMIN_ADDR", &admin.to_string())]).await;
    program.until_ready().await;
    let (clients, operators) = (Client::at(program.address), Client::at(admin));
    for (method, route) in chassis::operators::ROUTES {
        clients.get(path(route)).await.problem(404, "");
        if method == "GET" {
            operators.get(path(route)).await.expect(200);
        }
    }
    clients.get("/users").await.expect(200);
    operators.get("/users").await.problem(404, "");
    let metrics = operators.get("/metrics").await.text();
    for metric in ["http_server_request_duration_seconds_count", "db_pool_waiting", "process_open_fds", "build_info"] {
        assert!(metrics.contains(metric), "{metric} in {metrics}");
    }

    assert_eq!(operators.get("/log-level").await.text(), "info");
    let set = |text: &str| operators.call(Method::PUT, "/log-level").body("text/plain", text.to_owned());
    let problem = set("users=loudly").await.problem(400, "");
    assert!(problem["detail"].as_str().expect("text").contains("log directives"), "{problem}");
    assert_eq!(set("info,chassis=debug").await.expect(200).text(), "info,chassis=debug");
    clients.get("/users").header("x-request-id", "seen").await.expect(200);
    assert_eq!(set("info").await.expect(200).text(), "info");
    clients.get("/users").header("x-request-id", "unseen").await.expect(200);

    let channel = Channel::from_shared(format!("http://{admin}")).expect("a URI").connect().await.expect("HTTP/2");
    let request = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(futures_util::stream::iter([request])).await.expect("a stream");
    let answer = answers.into_inner().message().await.expect("an answer").expect("one");
    assert!(format!("{answer:?}").contains("users.v1.Users"), "{answer:?}");

    program.signal("TERM");
    let (status, log) = program.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("\"request.id\":\"seen\"") && !log.contains("\"request.id\":\"unseen\""), "{log}");
}

#[test]
fn the_table_of_the_documents_has_the_routes_of_operators() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md")).expect("a page");
    let (_, table) = page.split_once("| at `ADMIN_ADDR` | |\n").expect("a table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let routes: Vec<String> = rows.map(|row| row.split('`').nth(1).expect("a route").to_owned()).collect();
    assert_eq!(routes, chassis::operators::ROUTES.map(|(method, route)| format!("{method} {route}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_named_origins_may_call() {
    let url = closed_url();
    let origins = "https://shop.example,http://localhost:3000";
    let program = Program::start(&[("USERS_DATABASE_URL", &url), ("CORS_ORIGINS", origins)]).await;
    let client = Client::at(program.address);
    until("it serves", async || client.get("/health/live").await.status == 200).await;
    let ask = |origin: &'static str| {
        let call = client.call(Method::OPTIONS, "/users").header("origin", origin);
        call.header("access-control-request-method", "PATCH").header("access-control-request-headers", "if-match")
    };
    for origin in ["https://shop.example", "http://localhost:3000"] {
        let answer = ask(origin).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert!(answer.header("access-control-allow-methods").contains("PATCH"));
        for header in ["if-match", "read-after"] {
            assert!(answer.header("access-control-allow-headers").contains(header));
        }
        let answer = client.get("/health/live").header("origin", origin).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        for header in ["etag", "read-after"] {
            assert!(answer.header("access-control-expose-headers").contains(header));
        }
    }
    let refused = ask("https://evil.example").await;
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn browsers_are_told_what_an_answer_is_and_what_a_page_may_load() {
    let service = Service::start();
    for path in ["/users", "/nowhere", "/docs/", "/openapi.json", "/metrics"] {
        let answer = service.client.get(path).header("origin", "https://shop.example").await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
    }
    let page = service.client.get("/docs/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
}
