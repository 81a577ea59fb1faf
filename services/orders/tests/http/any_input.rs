//! No input yields a 5xx.

use axum::http::Method;
use dev::http::Call;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::{Service, id};

/// A request that somebody might send. `{user}` and `{order}` in it stand for the ids of those that exist.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    media_type: &'static str,
    body: Vec<u8>,
}

impl Request {
    fn call(&self, service: &Service, order: &str) -> Call {
        let user = service.user.to_string();
        let known = |text: &str| text.replace("{user}", &user).replace("{order}", order);
        let query: Vec<_> = self.query.iter().map(|(name, value)| format!("{name}={}", known(value))).collect();
        let call = service.client.call(self.method.clone(), format!("{}?{}", known(&self.path), query.join("&")));
        let call = self.headers.iter().fold(call, |call, (name, value)| call.header(name, value));
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) => known(text).into_bytes(),
            Err(_) => self.body.clone(),
        };
        call.body(self.media_type, body)
    }
}

/// Any bytes, as they stand in a path or a query.
fn escaped() -> impl Strategy<Value = String> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02x}")).collect())
}

fn path() -> impl Strategy<Value = String> {
    let step = select(vec!["", "/pay", "/ship", "/deliver", "/cancel", "/events"]);
    prop_oneof![
        4 => Just("/orders".to_owned()),
        4 => step.prop_map(|step| format!("/orders/{{order}}{step}")),
        2 => select(vec!["/events", "/open-orders", "/openapi.json", "/docs/"]).prop_map(str::to_owned),
        1 => escaped().prop_map(|id| format!("/orders/{id}")),
        1 => vec(escaped(), 0..4).prop_map(|path| format!("/{}", path.join("/"))),
    ]
}

fn query() -> impl Strategy<Value = Vec<(String, String)>> {
    let known = vec!["limit", "cursor", "after", "user_id", "status", "as_of"];
    let name = prop_oneof![9 => select(known).prop_map(str::to_owned), 1 => escaped()];
    let values =
        vec!["1", "0", "-1", "1000", "18446744073709551616", "", "%00", "+", "paid", "{user}", "2030-01-01T00:00:00Z"];
    let time = (any::<u16>(), 0..20_u8, 0..40_u8, 0..30_u8, 0..70_u8, any::<u64>(), 0..30_u8).prop_map(
        |(year, month, day, hour, second, fraction, offset)| {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:00:{second:02}.{fraction}%2B{offset:02}:00")
        },
    );
    let value = prop_oneof![3 => select(values).prop_map(str::to_owned), 1 => time, 1 => escaped()];
    // Most requests have none, so that they get further.
    prop_oneof![vec((name, value), 0..3), Just(Vec::new())]
}

fn json_value() -> impl Strategy<Value = Value> {
    let text = vec(any::<char>(), 0..70).prop_map(|text| text.into_iter().collect::<String>());
    let scalar = prop_oneof![
        4 => text.clone().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, move |inner| {
        let fields = vec((text.clone(), inner.clone()), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect()));
        prop_oneof![vec(inner, 0..4).prop_map(Value::from), fields]
    })
}

/// An object of these fields, of which some are anything, or missing, and some are unknown.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> {
    let fields = fields.into_iter().map(|(name, usual)| {
        let value = prop_oneof![12 => usual.prop_map(Some), 1 => json_value().prop_map(Some), 1 => Just(None)];
        value.prop_map(move |value| Some((name.to_owned(), value?)))
    });
    let unknown = prop_oneof![12 => Just(Vec::new()), 1 => vec(("[a-z/~]{0,3}", json_value()), 1..3)];
    (fields.collect::<Vec<_>>(), unknown).prop_map(|(known, unknown)| {
        let fields: Map<_, _> = known.into_iter().flatten().chain(unknown).collect();
        Value::Object(fields)
    })
}

fn order() -> impl Strategy<Value = Value> {
    let sku = vec(any::<char>(), 0..70).prop_map(|sku| json!(sku.into_iter().collect::<String>()));
    let quantity = prop_oneof![4 => (1..=10_000).prop_map(Value::from), 1 => any::<f64>().prop_map(Value::from)];
    let price = prop_oneof![4 => (0..=1_000_000_000).prop_map(Value::from), 1 => any::<i64>().prop_map(Value::from)];
    let item = object(vec![("sku", sku.boxed()), ("quantity", quantity.boxed()), ("unit_price_minor", price.boxed())]);
    let user = prop_oneof![8 => Just(json!("{user}")), 1 => any::<u128>().prop_map(|id| json!(Uuid::from_u128(id)))];
    let currency = prop_oneof![4 => Just(json!("EUR")), 1 => "[A-Z]{3}".prop_map(Value::from)];
    let items = vec(item, 0..4).prop_map(Value::from);
    object(vec![("user_id", user.boxed()), ("currency", currency.boxed()), ("items", items.boxed())])
}

fn request() -> impl Strategy<Value = Request> {
    let method = prop_oneof![
        4 => Just(Method::GET),
        6 => Just(Method::POST),
        1 => select(vec![Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::TRACE]),
    ];
    let names = vec!["idempotency-key", "if-match", "if-none-match", "x-request-id", "traceparent", "accept"];
    let headers = vec((select(names), prop_oneof!["[ -~]{0,40}", Just("a".to_owned())]), 0..3);
    let media_type = prop_oneof![9 => Just("application/json"), 1 => Just("text/plain")];
    let reason = object(vec![("reason", any::<String>().prop_map(Value::from).boxed())]);
    let body = prop_oneof![
        6 => order().prop_map(|order| order.to_string().into_bytes()),
        2 => reason.prop_map(|reason| reason.to_string().into_bytes()),
        1 => json_value().prop_map(|json| json.to_string().into_bytes()),
        1 => vec(any::<u8>(), 0..100),
        // JSON that breaks off, and JSON too deep for many a parser.
        1 => (order(), 0..200_usize).prop_map(|(order, end)| order.to_string().bytes().take(end).collect()),
        1 => (1..30_000_usize).prop_map(|depth| [b"[".repeat(depth), b"]".repeat(depth)].concat()),
    ];
    (method, path(), query(), headers, media_type, body).prop_map(|(method, path, query, headers, media_type, body)| {
        Request { method, path, query, headers, media_type, body }
    })
}

#[test]
fn no_input_yields_a_5xx_and_every_refusal_is_a_problem() {
    let runtime = Runtime::new().expect("a runtime");
    let service = runtime.block_on(Service::start());
    let order = runtime.block_on(service.place());
    // The same requests at every run.
    let config =
        ProptestConfig { cases: 600, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() };
    proptest!(config, |(request in request())| {
        let head = request.method == Method::HEAD;
        let answer = runtime.block_on(request.call(&service, id(&order)).into_future());
        prop_assert!(answer.status < 500, "{}: {}", answer.status, answer.text());
        prop_assert!(answer.headers.contains_key("x-request-id"));
        if answer.status >= 400 && !head {
            prop_assert_eq!(answer.header("content-type"), "application/problem+json");
            let problem = answer.json();
            prop_assert_eq!(problem["status"].as_u64(), Some(answer.status.into()));
            let kind = problem["type"].as_str().expect("a type");
            prop_assert!(kind == "about:blank" || [409, 422].contains(&answer.status), "{}", problem);
            let with_errors = answer.status == 422 && kind != "urn:problem-type:idempotency-key-reused";
            prop_assert_eq!(problem["errors"].is_array(), with_errors, "{}", problem);
        }
    });
}
