//! No input yields a 5xx.

use axum::http::Method;
use dev::http::Call;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{Service, id};

/// A request that somebody might send.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    path: Vec<Segment>,
    query: Vec<(Segment, Segment)>,
    headers: Vec<(&'static str, String)>,
    media_type: &'static str,
    body: Vec<u8>,
}

/// A part of a path or a query.
#[derive(Debug, Clone)]
enum Segment {
    Known(&'static str),
    /// Id of a user who exists.
    User,
    Any(Vec<u8>),
}

impl Segment {
    fn write(&self, user: &str) -> String {
        match self {
            Self::Known(text) => (*text).to_owned(),
            Self::User => user.to_owned(),
            Self::Any(bytes) => bytes.iter().map(|byte| format!("%{byte:02x}")).collect(),
        }
    }
}

impl Request {
    fn call(&self, service: &Service, user: &str) -> Call {
        let path: Vec<_> = self.path.iter().map(|segment| segment.write(user)).collect();
        let query = self.query.iter().map(|(name, value)| format!("{}={}", name.write(user), value.write(user)));
        let query: Vec<_> = query.collect();
        let call = service.client.call(self.method.clone(), format!("/{}?{}", path.join("/"), query.join("&")));
        let call = self.headers.iter().fold(call, |call, (name, value)| call.header(name, value));
        call.body(self.media_type, self.body.clone())
    }
}

fn any_path() -> impl Strategy<Value = Vec<Segment>> {
    use Segment::{Any, Known, User};
    let known = select(vec![
        vec![Known("users")],
        vec![Known("users"), User],
        vec![Known("users"), User, Known("reactivate")],
        vec![Known("users"), User, Known("events")],
        vec![Known("events")],
    ]);
    let odd = vec(any::<u8>(), 0..40).prop_map(|bytes| vec![Known("users"), Any(bytes)]);
    let wild = vec(vec(any::<u8>(), 0..10).prop_map(Any), 0..4);
    prop_oneof![8 => known, 1 => odd, 1 => wild]
}

fn any_query() -> impl Strategy<Value = Vec<(Segment, Segment)>> {
    let name = prop_oneof![
        9 => select(vec!["limit", "cursor", "after", "email", "id"]).prop_map(Segment::Known),
        1 => vec(any::<u8>(), 0..10).prop_map(Segment::Any),
    ];
    let value = prop_oneof![
        select(vec!["1", "0", "-1", "100", "1000", "18446744073709551616", "", "%00", "+"]).prop_map(Segment::Known),
        Just(Segment::User),
        vec(any::<u8>(), 0..60).prop_map(Segment::Any),
    ];
    vec((name, value), 0..3)
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = vec(any::<char>(), 0..300).prop_map(|text| text.into_iter().collect::<String>());
    let email = select(vec!["a@b", "A@B", "ada@example.org", "nobody"]).prop_map(str::to_owned);
    let scalar = prop_oneof![
        4 => prop_oneof![text.clone(), email].prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[a-z/~]{0,3}", inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let field = prop_oneof![8 => select(vec!["email", "name"]).prop_map(str::to_owned), 1 => text];
    prop_oneof![
        8 => vec((field, value.clone()), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        1 => value,
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    let method = prop_oneof![
        8 => select(vec![Method::GET, Method::POST, Method::PATCH, Method::DELETE]),
        1 => select(vec![Method::PUT, Method::HEAD, Method::OPTIONS, Method::TRACE]),
    ];
    let header = select(vec!["if-match", "if-none-match", "x-request-id", "traceparent", "accept", "content-encoding"]);
    let headers = vec((header, "[ -~]{0,40}"), 0..3);
    let media_type = prop_oneof![
        6 => Just("application/json"),
        2 => Just("application/merge-patch+json"),
        1 => Just("text/plain"),
    ];
    let body = prop_oneof![
        6 => any_json().prop_map(|body| body.to_string().into_bytes()),
        1 => vec(any::<u8>(), 0..100),
        // JSON that breaks off.
        1 => (any_json(), 0..50_usize).prop_map(|(body, end)| body.to_string().bytes().take(end).collect()),
    ];
    (method, any_path(), any_query(), headers, media_type, body).prop_map(
        |(method, path, query, headers, media_type, body)| Request { method, path, query, headers, media_type, body },
    )
}

#[test]
fn no_input_yields_a_5xx_and_every_refusal_is_a_problem() {
    let runtime = Runtime::new().expect("a runtime");
    let service = Service::start();
    let user = runtime.block_on(service.register("ada"));
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(request in any_request())| {
        let head = request.method == Method::HEAD;
        let answer = runtime.block_on(request.call(&service, id(&user)).into_future());
        prop_assert!(answer.status < 500, "{}: {}", answer.status, answer.text());
        prop_assert!(answer.headers.contains_key("x-request-id"));
        if answer.status >= 400 && !head {
            let status = answer.status;
            let problem = answer.json();
            prop_assert_eq!(answer.header("content-type"), "application/problem+json");
            prop_assert_eq!(&problem["status"], &json!(status));
            let kind = problem["type"].as_str().expect("a type");
            prop_assert!(kind == "about:blank" || (status == 409 && kind.starts_with("urn:problem-type:")), "{}", problem);
            prop_assert_eq!(problem["errors"].is_array(), status == 422, "{}", problem);
        }
    });
}
