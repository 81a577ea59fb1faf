//! What holds for every path, and what operators ask: health, metrics, documents, request ids, problems.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use dev::http::{Answer, Call};
use dev::postgres::{TestDatabase, USERS_ROLE};
use dev::process::free_address;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, app, client, execute, path, person, settings, start};

/// Every route of the contract: path, method, and the statuses the contract knows for it, which the document must list.
const ROUTES: [(&str, &str, &[u16]); 13] = [
    ("/users", "post", &[201, 400, 409, 413, 415, 422, 503]),
    ("/users", "get", &[200, 400, 503]),
    ("/users/{id}", "get", &[200, 304, 404, 503]),
    ("/users/{id}", "patch", &[200, 400, 404, 409, 412, 413, 415, 422, 503]),
    ("/users/{id}", "delete", &[204, 404, 409, 412, 503]),
    ("/users/{id}/reactivate", "post", &[200, 404, 412, 503]),
    ("/users/{id}/events", "get", &[200, 400, 404, 503]),
    ("/events", "get", &[200, 400, 410, 503]),
    ("/health/live", "get", &[200]),
    ("/health/ready", "get", &[200, 503]),
    ("/metrics", "get", &[200]),
    ("/openapi.json", "get", &[]),
    ("/docs", "get", &[]),
];

/// A URL of a server that is not there.
pub fn closed_url() -> String {
    format!("postgres://users_svc:s3cret@{}/nowhere", free_address())
}

#[tokio::test]
async fn a_service_is_alive_without_a_database_but_not_ready() {
    let client = client(&closed_url(), &settings());
    client.get("/health/live").await.expect(200);
    let answer = client.get("/health/ready").await.expect(503);
    assert_eq!(answer.header("retry-after"), "1");
    let problem = answer.problem(503, "");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("database")), "{problem}");
}

#[tokio::test]
async fn a_service_is_ready_when_the_newest_migration_it_needs_is_applied() {
    let service = Service::start();
    let newest = shared_db::newest_migration();
    service.client.get("/health/live").await.expect(200);
    service.client.get("/health/ready").await.expect(200);
    service
        .execute(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (99991231000000, 'newer', true, '', 0)",
        )
        .await;
    service.client.get("/health/ready").await.expect(200);

    for (lacking, again) in [
        ("update _sqlx_migrations set success = false where", "update _sqlx_migrations set success = true where"),
        ("delete from _sqlx_migrations where", ""),
    ] {
        service.execute(&format!("{lacking} version = {newest}")).await;
        let problem = service.client.get("/health/ready").await.problem(503, "");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&newest.to_string())), "{problem}");
        service.client.get("/health/live").await.expect(200);
        if !again.is_empty() {
            service.execute(&format!("{again} version = {newest}")).await;
            service.client.get("/health/ready").await.expect(200);
        }
    }
    let empty = TestDatabase::empty();
    let client = client(&empty.url_as(USERS_ROLE), &settings());
    let problem = client.get("/health/ready").await.problem(503, "");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&newest.to_string())), "{problem}");
}

/// The series of `name` in Prometheus' text format that have all these labels: what stands after the labels.
fn series(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
    let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests_by_route_and_show_the_pool_and_the_events_held_back() {
    let service = Service::start();
    let user = service.register("ada").await;
    service.client.get(path(&user)).await.expect(200);
    service.client.get(path(&user)).header("if-none-match", "*").await.expect(304);
    service.client.get("/users/nobody").await.expect(404);
    service.client.call(Method::PUT, "/users").await.expect(405);
    service.client.get("/secret-path").await.expect(404);
    let invented = Method::from_bytes(b"BREW").expect("a method");
    service.client.call(invented, "/users").await.expect(405);

    let mut older = service.database.owner().await;
    execute(&mut older, "begin; select pg_current_xact_id()").await;
    service.register("withheld").await;
    let watch = tokio::spawn(chassis::events::watch(app(&service.database.url_as(USERS_ROLE), &settings())));
    let metrics = loop {
        let answer = service.client.get("/metrics").await.expect(200);
        assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
        if series(&answer.text(), "event_log_withheld_seconds", &[]).iter().any(|seconds| *seconds > 0.0) {
            break answer.text();
        }
        tokio::task::yield_now().await;
    };
    watch.abort();

    for (method, route, status) in [
        ("POST", "/users", "201"),
        ("GET", "/users/{id}", "200"),
        ("GET", "/users/{id}", "304"),
        ("GET", "/users/{id}", "404"),
        ("PUT", "/users", "405"),
        ("_OTHER", "/users", "405"),
        ("GET", "", "404"),
        ("GET", "/metrics", "200"),
    ] {
        let labels = [("http_request_method", method), ("http_route", route), ("http_response_status_code", status)];
        for part in ["count", "sum", "bucket"] {
            let found = series(&metrics, &format!("http_server_request_duration_seconds_{part}"), &labels);
            assert!(!found.is_empty() && found.iter().all(|value| *value > 0.0 || part == "bucket"), "{part} {labels:?}");
        }
    }
    for state in ["idle", "used"] {
        assert_eq!(series(&metrics, "db_pool_connections", &[("state", state)]).len(), 1);
    }
    assert_eq!(series(&metrics, "db_pool_waiting", &[]).len(), 1);
    // Whatever clients send, the number of series stays small.
    for sent in [user["id"].as_str().expect("an id"), "nobody", "secret-path", "BREW"] {
        assert!(!metrics.contains(sent), "{sent} in {metrics}");
    }
}

#[tokio::test]
async fn the_openapi_document_lists_every_route_with_its_answers() {
    let service = Service::start();
    let answer = service.client.get("/openapi.json").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let mut listed = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            listed.insert((path.as_str(), method.as_str()));
        }
    }
    let expected = ROUTES.iter().filter(|(.., statuses)| !statuses.is_empty()).map(|(path, method, _)| (*path, *method));
    assert_eq!(listed, expected.collect());
    for (path, method, statuses) in ROUTES {
        for status in statuses {
            let answer = &document["paths"][path][method]["responses"][status.to_string()];
            assert!(answer.is_object(), "{method} {path} answers {status}");
            assert!(
                answer["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{method} {path} {status}: {answer}"
            );
            if *status >= 400 {
                assert!(answer["content"]["application/problem+json"].is_object(), "{method} {path} {status}: {answer}");
            }
        }
    }
    // OpenAPI 3.1: each response has a description, each operation an id of its own and a known tag.
    let mut ids = BTreeSet::new();
    let tags: Vec<_> = document["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).collect();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            for (status, answer) in operation["responses"].as_object().expect("responses") {
                assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} {status}");
            }
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{method} {path}");
            assert!(operation["tags"].as_array().expect("tags").iter().all(|tag| tags.contains(&tag)), "{method} {path}");
        }
    }
    // Every reference leads somewhere.
    let text = answer.text();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn the_openapi_documents_examples_are_requests_that_the_service_accepts() {
    let service = Service::start();
    let document = service.client.get("/openapi.json").await.expect(200).json();
    let mut sent = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                let example = &content["example"];
                assert!(example.is_object(), "{method} {path} {media_type} has no example");
                let user = service.register(&format!("Ada{sent}")).await;
                let path = path.replace("{id}", user["id"].as_str().expect("an id"));
                let method = method.to_uppercase().parse().expect("a method");
                let answer = service.client.call(method, &path).body(media_type, example.to_string()).await;
                assert!((200..300).contains(&answer.status), "{path} {example}: {}", answer.text());
                let answered = answer.json();
                for (field, value) in example.as_object().expect("fields") {
                    assert_eq!(answered[field], *value, "{path}");
                }
                sent += 1;
            }
        }
    }
    assert_eq!(sent, 3, "registering, and changing in two media types");
}

/// What is common to all operations, and what tools ask of a document.
#[tokio::test]
async fn the_openapi_document_describes_every_operation_and_tag() {
    let service = Service::start();
    let document = service.client.get("/openapi.json").await.expect(200).json();
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    assert!(document["info"]["description"].as_str().is_some_and(|text| text.contains("`If-Modified-Since`")));
    assert!(is_text(&document["info"]["contact"]["name"]) && is_text(&document["info"]["license"]["name"]));
    assert_eq!(document["servers"][0]["url"], "/");
    assert!(
        document["tags"].as_array().expect("tags").iter().all(|tag| is_text(&tag["description"])),
        "{}",
        document["tags"]
    );
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            assert!(is_text(&operation["summary"]) && is_text(&operation["description"]), "{method} {path}");
            for status in ["400", "412", "415", "417"] {
                assert!(operation["responses"][status].is_object(), "{method} {path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn the_openapi_document_tells_the_limits_that_are_kept() {
    let service = Service::start();
    let document = service.client.get("/openapi.json").await.expect(200).json();
    let parameter = |path: &str, name: &str| -> Value {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("parameters").clone();
        parameters.into_iter().find(|parameter| parameter["name"] == name).expect("the parameter")
    };
    for (path, name, minimum, maximum) in [
        ("/users", "limit", 1, 100),
        ("/users/{id}/events", "limit", 1, 100),
        ("/events", "limit", 1, 1000),
        ("/events", "wait", 0, 30),
    ] {
        let schema = &parameter(path, name)["schema"];
        assert_eq!((&schema["minimum"], &schema["maximum"]), (&json!(minimum), &json!(maximum)), "{path} {name}");
    }
    let ids = parameter("/users", "id");
    assert_eq!(ids["schema"]["maxItems"], 100, "{ids}");
    let feed = &document["paths"]["/events"]["get"]["responses"]["200"]["content"];
    assert!(feed["application/cloudevents-batch+json"].is_object(), "{feed}");
    let patch = document["paths"]["/users/{id}"]["patch"]["requestBody"]["content"].as_object().expect("bodies");
    assert_eq!(patch.keys().collect::<Vec<_>>(), ["application/json", "application/merge-patch+json"]);
    for (name, required) in [("RegisterUser", json!(["email", "name"])), ("ChangeUser", Value::Null)] {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["additionalProperties"], false, "{schema}");
        assert_eq!(schema["required"], required, "{schema}");
        assert_eq!(schema["properties"]["email"]["maxLength"], 254, "{schema}");
        assert_eq!(
            (&schema["properties"]["name"]["minLength"], &schema["properties"]["name"]["maxLength"]),
            (&json!(1), &json!(200)),
            "{schema}"
        );
    }
    let user = &document["components"]["schemas"]["User"];
    let mut fields: Vec<_> = user["required"].as_array().expect("fields").iter().filter_map(Value::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["created_at", "email", "id", "name", "status", "updated_at", "version"]);
}

/// What `src` and `href` of a page lead to.
fn assets(html: &str) -> Vec<&str> {
    let attributes = ["src=", "href="];
    attributes
        .into_iter()
        .flat_map(|attribute| html.split(attribute).skip(1))
        .map(|rest| rest.trim_start_matches(['"', '\'']).split(['"', '\'', ' ', '>']).next().expect("a value"))
        .collect()
}

#[tokio::test]
async fn the_api_page_needs_nothing_from_elsewhere() {
    let service = Service::start();
    // As a browser does that is given /docs.
    let answer = service.client.get("/docs").await;
    let base = if answer.status == 200 { "/docs" } else { answer.header("location") }.to_owned();
    let page = service.client.get(&base).await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let html = page.text();
    let assets = assets(&html);
    assert!(assets.iter().any(|asset| asset.ends_with(".js")) && assets.iter().any(|asset| asset.ends_with(".css")));
    let mut scripts = String::new();
    for asset in assets {
        assert!(!asset.contains("//"), "{asset} comes from elsewhere");
        let path =
            if asset.starts_with('/') { asset.to_owned() } else { format!("/docs/{}", asset.trim_start_matches("./")) };
        let answer = service.client.get(&path).await.expect(200);
        assert!(!answer.body.is_empty());
        if asset.ends_with("initializer.js") {
            scripts.push_str(&answer.text());
        }
    }
    assert!(scripts.contains("/openapi.json"), "{scripts}");
    assert!(!scripts.contains("http://") && !scripts.contains("https://"), "{scripts}");
}

/// Unless told otherwise, Swagger UI on any host but localhost shows a badge from validator.swagger.io, and tells that
/// server where the document is.
#[tokio::test]
async fn the_api_page_asks_nobody_whether_the_document_is_valid() {
    let service = Service::start();
    let settings = service.client.get("/docs/swagger-initializer.js").await.expect(200).text();
    assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let service = Service::start();
    let user = service.register("ada").await;
    let calls = || -> Vec<Call> {
        let client = &service.client;
        vec![
            client.get("/users"),
            client.get(path(&user)).header("if-none-match", "*"),
            client.get("/events"),
            client.get("/health/live"),
            client.get("/metrics"),
            client.get("/openapi.json"),
            client.get("/docs/"),
            client.get("/nowhere"),
            client.get("/users/nobody"),
            client.get("/users?x=1"),
            client.call(Method::PUT, "/users"),
            client.post("/users").json(&json!({})),
            client.post("/users").json(&person("ada")),
            client.post("/users"),
            client.post("/users").body("application/json", " ".repeat(70_000)),
            client.patch(path(&user)).header("if-match", "\"9\"").json(&json!({})),
            client.delete(path(&user)),
        ]
    };
    let mut made = BTreeSet::new();
    for call in calls() {
        let answer = call.await;
        let id = answer.header("x-request-id").to_owned();
        assert!(Uuid::parse_str(&id).is_ok(), "{id}");
        assert!(made.insert(id), "each has its own");
    }
    for call in calls() {
        let answer = call.header("x-request-id", "job-7/Step_2:a.b+c=").await;
        assert_eq!(answer.header("x-request-id"), "job-7/Step_2:a.b+c=");
    }
    let id = |sent: String| {
        let call = service.client.get("/health/live").header("x-request-id", sent);
        async { call.await.header("x-request-id").to_owned() }
    };
    for sane in ["1", &Uuid::now_v7().to_string(), &"x".repeat(128)] {
        assert_eq!(id(sane.to_owned()).await, sane);
    }
    for insane in ["", " ", "a b", "a\tb", "<script>", "\"", "a;b", "{}", &"x".repeat(129), &"x".repeat(8000)] {
        let made = id(insane.to_owned()).await;
        assert!(Uuid::parse_str(&made).is_ok(), "{made} instead of {insane}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_and_not_found() {
    let service = Service::start();
    let paths =
        ["/", "/user", "/users/", "/Users", "/users/1/2/3", "/health", "/health/", "/events/1", "/%ff", "/openapi.yaml"];
    for path in paths {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            let problem = service.client.call(method, path).await.problem(404, "");
            assert_eq!(problem["instance"], path);
        }
    }
    service.client.get("/docs/nothing.js").await.problem(404, "");
}

#[tokio::test]
async fn a_wrong_method_is_told_which_ones_there_are() {
    let service = Service::start();
    let user = path(&service.register("ada").await);
    let mut allowed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in ROUTES {
        allowed.entry(path).or_default().insert(method.to_uppercase());
    }
    for (route, methods) in allowed {
        let path = route.replace("/users/{id}", &user);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if methods.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let answer: Answer = service.client.call(method.clone(), &path).await.expect(405);
            let mut told: BTreeSet<_> = answer.header("allow").split(',').map(|one| one.trim().to_owned()).collect();
            // Whoever answers GET answers HEAD.
            told.remove("HEAD");
            assert_eq!(told, methods, "{method} {path}");
            assert_eq!(answer.problem(405, "")["instance"], path.as_str());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_documents_do_not_wait_for_a_database_that_is_busy() {
    let service = Service::with(|settings| settings.max_connections = 1);
    let user = service.register("ada").await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; lock table users in exclusive mode").await;
    let blocked = start(service.client.patch(path(&user)).json(&json!({ "name": "Ada" })));
    service.until_blocked(1).await;
    for path in ["/health/live", "/metrics", "/openapi.json", "/docs/", "/nowhere"] {
        let answer = service.client.get(path).await;
        assert!([200, 404].contains(&answer.status), "{path}");
    }
    assert!(!blocked.is_finished());
    execute(&mut owner, "commit").await;
    blocked.await.expect("an answer").expect(200);
}
