//! A users service that does as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use chassis::remote::Limits;
use orders::customers::Users;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Answers: every user exists and is called Ada.
    Answers,
    /// Fails this many requests, and then answers.
    FailsFirst(usize),
    /// Says that it cannot.
    Fails,
    /// Says nothing at all.
    Hangs,
    /// Answers something that its contract does not have.
    Babbles,
    /// Is not there: a gateway answers in its place, with this status and a page for people.
    Gateway(u16),
    /// The same, with a problem of the gateway's own.
    Refuses(u16, GatewayProblem),
}

/// What a gateway's problem says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayProblem {
    OfAnotherRequest,
    Untyped,
}

/// The service, and what it was asked.
#[derive(Clone)]
pub struct FakeUsers {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
}

struct Told {
    mode: Mode,
    seen: Vec<Seen>,
}

/// A request it received.
#[derive(Debug, Clone)]
pub struct Seen {
    pub ids: Vec<String>,
    pub request_id: String,
    pub traceparent: Option<String>,
}

impl FakeUsers {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::new(Mutex::new(Told { mode: Mode::Answers, seen: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(told.clone());
        tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}));
        Self { address, told }
    }

    /// The port to it.
    pub fn port(&self, limits: Limits) -> Users {
        Users::http(&self.address.into(), limits)
    }

    pub fn now(&self, mode: Mode) {
        self.told.lock().expect("unpoisoned").mode = mode;
    }

    /// What it was asked since the last look.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.told.lock().expect("unpoisoned").seen)
    }
}

async fn answer(State(told): State<Arc<Mutex<Told>>>, uri: Uri, headers: HeaderMap) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    let ids = ids(&uri);
    let mode = {
        let mut told = told.lock().expect("unpoisoned");
        let request_id = header("x-request-id").unwrap_or_default();
        told.seen.push(Seen { ids: ids.clone(), request_id, traceparent: header("traceparent") });
        match told.mode {
            Mode::FailsFirst(0) => Mode::Answers,
            Mode::FailsFirst(times) => {
                told.mode = Mode::FailsFirst(times - 1);
                Mode::Fails
            }
            mode => mode,
        }
    };
    match mode {
        Mode::Answers | Mode::FailsFirst(_) => Json(users(&ids, uri.query().is_some())).into_response(),
        Mode::Fails => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mode::Hangs => std::future::pending().await,
        Mode::Gateway(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let page = [(header::CONTENT_TYPE, "text/html"), (header::LOCATION, "/login")];
            (status, page, "<html>no such page</html>").into_response()
        }
        Mode::Refuses(status, problem) => {
            let problem = match problem {
                GatewayProblem::OfAnotherRequest => {
                    json!({ "type": "about:blank", "title": "No route", "status": status, "instance": "/" })
                }
                GatewayProblem::Untyped => json!({ "title": "No route", "status": status }),
            };
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
        }
        Mode::Babbles => Json(json!({ "who": "knows" })).into_response(),
    }
}

/// Of `/users/{id}`, or `/users?id=…&id=…`.
fn ids(uri: &Uri) -> Vec<String> {
    let ids = match uri.query() {
        None => uri.path().rsplit('/').take(1).collect::<Vec<_>>(),
        Some(query) => query.split('&').filter_map(|pair| pair.strip_prefix("id=")).collect(),
    };
    ids.into_iter().map(str::to_owned).collect()
}

/// A page of users, or the one.
fn users(ids: &[String], page: bool) -> Value {
    let user = |id| json!({ "id": id, "name": "Ada", "status": "active", "version": 1, "email": "ada@example.org" });
    if page { json!({ "items": ids.iter().map(user).collect::<Vec<_>>(), "next_cursor": null }) } else { user(&ids[0]) }
}
