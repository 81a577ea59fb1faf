//! What changes the meaning of a request, on all routes: RFC 9110 §8.4 (content codings), §10.1.1 (Expect), §13
//! (preconditions), RFC 9112 §3.2 (Host).

use axum::http::Method;
use dev::http::Call;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, path, person};

/// One call for each route of a user and of the list, by method and path.
fn calls(service: &Service, user: &Value) -> Vec<Call> {
    let (client, user) = (&service.client, path(user));
    vec![
        client.post("/users").json(&person("new")),
        client.get("/users"),
        client.get(&user),
        client.patch(&user).json(&json!({ "name": "Ada" })),
        client.post(format!("{user}/reactivate")),
        client.get(format!("{user}/events")),
        client.get("/events"),
        client.get("/health/ready"),
        client.delete(&user),
    ]
}

/// The claim that nothing was done.
async fn assert_unchanged(service: &Service, user: &Value) {
    assert_eq!(&service.get(user).await, user);
    assert_eq!(service.number("select count(*) from users").await, 1);
}

#[tokio::test]
async fn a_content_coding_is_refused_whatever_the_body_is() {
    let service = Service::start();
    let user = service.register("ada").await;
    for coding in ["gzip", "br", "x-unknown", "identity, gzip", "GZIP"] {
        for call in calls(&service, &user) {
            let answer = call.header("content-encoding", coding).await;
            assert_eq!(answer.header("accept-encoding"), "identity", "{coding}");
            answer.problem(415, "");
        }
    }
    assert_unchanged(&service, &user).await;
    for coding in ["identity", "", "Identity , identity"] {
        let patch = service.client.patch(path(&user)).header("content-encoding", coding);
        patch.json(&json!({ "name": "ada" })).await.expect(200);
    }
}

#[tokio::test]
async fn an_unknown_expectation_is_refused_before_the_body() {
    let service = Service::start();
    let user = service.register("ada").await;
    for call in calls(&service, &user) {
        call.header("expect", "the-impossible").await.problem(417, "");
    }
    assert_unchanged(&service, &user).await;
    service.client.patch(path(&user)).header("expect", "100-Continue").json(&json!({})).await.expect(200);
}

/// What is not there, and what cannot be done there, is said first.
#[tokio::test]
async fn an_unknown_path_or_method_or_id_comes_before_the_headers() {
    let service = Service::start();
    for (name, value) in [("content-encoding", "gzip"), ("expect", "x"), ("if-match", "\"1\""), ("if-none-match", "*")] {
        for path in ["/nowhere", "/users/nobody", "/users/nobody/events"] {
            service.client.get(path).header(name, value).await.problem(404, "");
        }
        service.client.call(Method::PUT, "/users").header(name, value).await.problem(405, "");
    }
    let stranger = format!("/users/{}", Uuid::now_v7());
    for name in ["if-match", "if-none-match"] {
        service.client.patch(&stranger).header(name, "*").json(&json!({})).await.problem(404, "");
        service.client.delete(&stranger).header(name, "*").await.problem(404, "");
        service.client.get(format!("{stranger}/events")).header(name, "*").await.problem(404, "");
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let service = Service::start();
    for host in ["", "two hosts", "user@host", "host:port", "a/b", "[::1", "host:80:80"] {
        service.client.get("/users").header("host", host).await.problem(400, "");
    }
    service.client.get("/users").header("host", "one").header("host", "one").await.problem(400, "");
    for host in ["localhost", "127.0.0.1:8081", "[::1]:8081", "users.internal", "a-b.example:", "under_score"] {
        service.client.get("/users").header("host", host).await.expect(200);
    }
}

#[tokio::test]
async fn if_none_match_keeps_a_change_from_what_is_there() {
    let service = Service::start();
    let user = service.register("ada").await;
    let changes = || {
        let (client, path) = (&service.client, path(&user));
        [
            client.patch(&path).json(&json!({ "name": "Ada" })),
            client.patch(&path).json(&json!({})),
            client.post(format!("{path}/reactivate")),
            client.delete(&path),
        ]
    };
    for tags in ["*", "\"1\"", "W/\"1\"", "W/\"1\", \"7\"", "\"a,b\", \"1\""] {
        for call in changes() {
            call.header("if-none-match", tags).await.problem(412, "");
        }
        for call in changes() {
            call.header("if-match", "\"1\"").header("if-none-match", tags).await.problem(412, "");
        }
    }
    for call in changes() {
        call.header("if-match", "\"2\"").header("if-none-match", "\"2\"").await.problem(412, "");
    }
    assert_unchanged(&service, &user).await;
    let patch = service.client.patch(path(&user)).json(&json!({ "name": "Ada" }));
    patch.header("if-match", "\"1\"").header("if-none-match", "\"2\", \"a,*\"").await.expect(200);
    // Before what would come of it: the user is deactivated.
    service.client.delete(path(&user)).await.expect(204);
    let patch = || service.client.patch(path(&user)).json(&json!({ "name": "Eve" }));
    patch().header("if-none-match", "*").await.problem(412, "");
    patch().await.problem(409, "user-deactivated");
}

#[tokio::test]
async fn if_match_holds_for_reading_and_the_dates_are_ignored() {
    let service = Service::start();
    let user = service.register("ada").await;
    let get = || service.client.get(path(&user));
    for tags in ["\"999\"", "W/\"1\"", "1", "\"*\""] {
        get().header("if-match", tags).await.problem(412, "");
        get().header("if-match", tags).header("if-none-match", "\"1\"").await.problem(412, "");
    }
    for tags in ["\"1\"", "*", "\"2\", \"1\""] {
        get().header("if-match", tags).await.expect(200);
        get().header("if-match", tags).header("if-none-match", "\"1\"").await.expect(304);
    }
    let head = || service.client.call(Method::HEAD, path(&user));
    head().header("if-none-match", "\"1\"").await.expect(304);
    head().header("if-match", "\"2\"").await.expect(412);
    for name in ["if-modified-since", "if-unmodified-since"] {
        get().header(name, "Sun, 06 Nov 1994 08:49:37 GMT").await.expect(200);
        get().header(name, "Fri, 06 Nov 2099 08:49:37 GMT").await.expect(200);
    }
}

/// It is there, and no tag names it.
#[tokio::test]
async fn what_has_no_tag_is_there() {
    let service = Service::start();
    let user = service.register("ada").await;
    for path in ["/users", "/events", "/health/ready", &format!("{}/events", path(&user))] {
        let get = || service.client.get(path);
        get().header("if-match", "*").await.expect(200);
        get().header("if-match", "\"1\"").await.problem(412, "");
        get().header("if-none-match", "\"1\"").await.expect(200);
        get().header("if-none-match", "*").await.expect(304);
    }
    let post = || service.client.post("/users").json(&person("new"));
    post().header("if-match", "\"1\"").await.problem(412, "");
    post().header("if-none-match", "*").await.problem(412, "");
    assert_unchanged(&service, &user).await;
    post().header("if-match", "*").await.expect(201);
}
