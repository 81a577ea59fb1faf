//! What operators, tools and browsers ask for.

use std::collections::BTreeSet;

use chassis::events::watch;
use dev::postgres::ORDERS_ROLE;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, app, id, settings};

/// Every method and path of the document that a service serves.
pub fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("methods").keys().map(|method| (method.to_uppercase(), path.clone()))
    });
    operations.collect()
}

#[tokio::test]
async fn the_document_lists_every_route_and_what_it_may_answer() {
    let service = Service::start().await;
    let answer = service.client.get("/openapi.json").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    let expected: [(&str, &str, &[u16]); 13] = [
        ("GET", "/events", &[200, 400, 410, 412, 415, 417, 503]),
        ("GET", "/health/live", &[200, 400, 412, 415, 417]),
        ("GET", "/health/ready", &[200, 400, 412, 415, 417, 503]),
        ("GET", "/metrics", &[200, 400, 412, 415, 417]),
        ("GET", "/open-orders", &[200, 400, 412, 415, 417, 503]),
        ("GET", "/orders", &[200, 400, 412, 415, 417, 503]),
        ("POST", "/orders", &[201, 400, 409, 412, 413, 415, 417, 422, 503]),
        ("GET", "/orders/{id}", &[200, 304, 400, 404, 410, 412, 415, 417, 503]),
        ("POST", "/orders/{id}/cancel", &[200, 400, 404, 409, 412, 413, 415, 417, 422, 503]),
        ("POST", "/orders/{id}/deliver", &[200, 400, 404, 409, 412, 415, 417, 503]),
        ("GET", "/orders/{id}/events", &[200, 304, 400, 404, 412, 415, 417, 503]),
        ("POST", "/orders/{id}/pay", &[200, 400, 404, 409, 412, 415, 417, 503]),
        ("POST", "/orders/{id}/ship", &[200, 400, 404, 409, 412, 415, 417, 503]),
    ];
    let mut listed: Vec<_> = operations(&document)
        .into_iter()
        .map(|(method, path)| {
            let responses = &document["paths"][&path][method.to_lowercase()]["responses"];
            for (status, response) in responses.as_object().expect("responses") {
                let description = response["description"].as_str();
                assert!(description.is_some_and(|text| !text.is_empty()), "{method} {path} {status}: {response}");
            }
            let statuses: Vec<u16> =
                responses.as_object().expect("responses").keys().map(|status| status.parse().expect("a status")).collect();
            (method, path, statuses)
        })
        .collect();
    listed.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    let listed: Vec<_> =
        listed.iter().map(|(method, path, answers)| (method.as_str(), path.as_str(), &answers[..])).collect();
    assert_eq!(listed, expected);

    // The other methods are refused in each path, and the refusal names those that are not.
    for path in expected.map(|(_, path, _)| path) {
        let path_of_one = path.replace("{id}", &Uuid::nil().to_string());
        let answer = service.client.patch(path_of_one).await;
        let allowed: BTreeSet<&str> = answer.header("allow").split(',').filter(|method| *method != "HEAD").collect();
        let known = expected.iter().filter(|known| known.1 == path).map(|(method, ..)| *method).collect();
        assert_eq!(allowed, known, "{path}");
        answer.problem(405, "");
    }
    for path in ["/openapi.json", "/docs/"] {
        let answer = service.client.post(path).await;
        assert!(answer.header("allow").contains("GET"), "{path}");
        answer.problem(405, "");
    }
    for nothing in
        ["/", "/order", "/orders/", "/orders/1/2/3", "/orders/1/refund", "/health", "/users", "/%00", "/docs/none"]
    {
        service.client.get(nothing).await.problem(404, "");
    }
}

/// The fields that a schema of the document lists, and those it promises.
fn fields(document: &Value, schema: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = &document["components"]["schemas"][schema];
    let listed = schema["properties"].as_object().unwrap_or_else(|| panic!("properties of {schema}")).keys().cloned();
    let required = schema["required"].as_array().into_iter().flatten();
    (listed.collect(), required.map(|field| field.as_str().expect("a name").to_owned()).collect())
}

#[tokio::test]
async fn the_documents_schemas_are_those_of_the_answers() {
    let service = Service::start().await;
    let document = service.client.get("/openapi.json").await.expect(200).json();
    let order = service.place().await;
    let open = service.client.get(format!("/open-orders?user_id={}", service.user)).await.expect(200).json();
    let event = service.history(id(&order)).await.remove(0);
    let health = service.client.get("/health/live").await.expect(200).json();
    for (schema, value) in [
        ("Order", &order),
        ("Customer", &order["customer"]),
        ("Line", &order["items"][0]),
        ("OpenOrders", &open),
        ("CloudEvent", &event),
        ("Health", &health),
    ] {
        let answered: BTreeSet<String> = value.as_object().expect("an object").keys().cloned().collect();
        let (listed, required) = fields(&document, schema);
        assert_eq!(required, answered, "{schema}");
        // Shown only while another service is called, or does not answer, or of a caller with a token.
        let at_times = ["customer_unavailable", "circuit_breakers", "actor", "traceparent"];
        let at_times = listed.difference(&answered).all(|field| at_times.contains(&&**field));
        assert!(at_times, "{schema}: {listed:?}");
    }
    let schema = |path: &str, method: &str| {
        let body = &document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"];
        let text = body.to_string();
        let name = text.split("#/components/schemas/").nth(1).and_then(|rest| rest.split('"').next());
        name.unwrap_or_else(|| panic!("a schema: {text}")).to_owned()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let place = schema("/orders", "post");
    let placed = names(&["user_id", "currency", "items"]);
    assert_eq!(fields(&document, &place), (placed.clone(), placed));
    let cancel = schema("/orders/{id}/cancel", "post");
    assert_eq!(fields(&document, &cancel), (names(&["reason"]), names(&[])));
    for closed in [&place, &cancel, "NewItem"] {
        assert_eq!(document["components"]["schemas"][closed]["additionalProperties"], json!(false), "{closed}");
    }
}

#[tokio::test]
async fn the_api_page_needs_nothing_from_elsewhere() {
    let service = Service::start().await;
    let answer = service.client.get("/docs").await;
    let home = if answer.status == 200 { "/docs".to_owned() } else { answer.header("location").to_owned() };
    let page = service.client.get(&home).await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    let links: Vec<&str> = [" src=\"", " href=\""]
        .iter()
        .flat_map(|attribute| text.split(attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() > 2, "{text}");
    for link in links {
        assert!(!link.contains("//"), "{link} is elsewhere");
        let path = if link.starts_with('/') { link.to_owned() } else { format!("/docs/{}", link.trim_start_matches("./")) };
        service.client.get(&path).await.expect(200);
    }
}

#[tokio::test]
async fn metrics_tell_of_requests_by_route_of_the_pool_and_of_withheld_events() {
    let service = Service::start().await;
    let order = service.place().await;
    service.read(id(&order)).await;
    service.client.get(format!("/orders/{}", Uuid::now_v7())).await.expect(404);
    let url = service.database.url_as(ORDERS_ROLE);
    let watch = tokio::spawn(watch(app(&url, &settings(1))));
    let metrics = async || {
        let answer = service.client.get("/metrics").await.expect(200);
        assert!(answer.header("content-type").starts_with("text/plain"));
        answer.text()
    };
    let mut text = metrics().await;
    while !text.contains("\nevent_log_withheld_seconds ") {
        assert!(!watch.is_finished());
        tokio::task::yield_now().await;
        text = metrics().await;
    }
    watch.abort();

    assert!(text.contains("# TYPE http_server_request_duration_seconds histogram"), "{text}");
    for labels in [
        &[r#"http_request_method="POST""#, r#"http_route="/orders""#, r#"http_response_status_code="201""#],
        &[r#"http_request_method="GET""#, r#"http_route="/orders/{id}""#, r#"http_response_status_code="200""#],
        &[r#"http_request_method="GET""#, r#"http_route="/orders/{id}""#, r#"http_response_status_code="404""#],
    ] {
        for series in ["bucket", "count", "sum"] {
            let name = format!("http_server_request_duration_seconds_{series}{{");
            let found = text.lines().any(|line| line.starts_with(&name) && labels.iter().all(|label| line.contains(label)));
            assert!(found, "{series} of {labels:?} in {text}");
        }
    }
    // The template, and no id.
    assert!(!text.contains(id(&order)), "{text}");
    for gauge in [r#"db_pool_connections{state="idle"}"#, r#"db_pool_connections{state="used"}"#, "db_pool_waiting"] {
        assert!(text.contains(&format!("\n{gauge} ")), "{gauge} in {text}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_requests_id() {
    let service = Service::start().await;
    let order = service.place().await;
    for path in [format!("/orders/{}", id(&order)), "/orders/nope".to_owned(), "/nothing".to_owned(), "/events".to_owned()] {
        for sane in ["a", "4bf92f35-77b3", "a.b_c:d/e+f=", &"x".repeat(128)] {
            let answer = service.client.get(&path).header("x-request-id", sane).await;
            assert_eq!(answer.header("x-request-id"), sane);
        }
        let mut made = BTreeSet::new();
        for other in ["", " ", "a b", "a\"b", "<script>", &"x".repeat(129)] {
            let answer = service.client.get(&path).header("x-request-id", other).await;
            made.insert(Uuid::parse_str(answer.header("x-request-id")).expect("an id of the service's own"));
        }
        made.insert(Uuid::parse_str(service.client.get(&path).await.header("x-request-id")).expect("an id"));
        assert_eq!(made.len(), 7);
    }
}

#[tokio::test]
async fn the_documents_examples_are_requests_that_the_service_accepts() {
    let service = Service::start().await;
    let document = service.client.get("/openapi.json").await.expect(200).json();
    let mut sent = 0;
    for (method, path) in operations(&document) {
        let body = &document["paths"][&path][method.to_lowercase()]["requestBody"];
        for (media_type, content) in body["content"].as_object().into_iter().flatten() {
            let mut example = content["example"].clone();
            assert!(example.is_object(), "{method} {path} {media_type} has no example");
            // The only thing that a document cannot know.
            if let Some(user) = example.get_mut("user_id") {
                *user = json!(service.user);
            }
            let order = service.place().await;
            let path = path.replace("{id}", id(&order));
            let method = method.parse().expect("a method");
            let answer = service.client.call(method, &path).body(media_type, example.to_string()).await;
            assert!((200..300).contains(&answer.status), "{path} {example}: {}", answer.text());
            sent += 1;
        }
    }
    assert_eq!(sent, 2, "placing and cancelling");
}
