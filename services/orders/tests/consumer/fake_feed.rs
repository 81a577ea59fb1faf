//! A users service that publishes what it is told to: its feed, and its list of users.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The cursor before all events.
pub const START: &str = "at-0";
/// A cursor before events that are gone.
pub const GONE: &str = "gone";

/// The feed's server, and what it was asked.
pub struct FakeFeed {
    pub address: SocketAddr,
    state: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    news: Notify,
}

#[derive(Default)]
struct Log {
    events: Vec<Value>,
    users: Vec<Value>,
    during_snapshot: Vec<Value>,
    at_most: Option<usize>,
    no_snapshot: bool,
    asked: Vec<String>,
    waiting: usize,
}

/// A user's event.
pub fn event(user: Uuid, version: i64, name: &str, status: &str) -> Value {
    let r#type = match (version, status) {
        (1, _) => "user.registered.v1",
        (_, "deactivated") => "user.deactivated.v1",
        _ => "user.changed.v1",
    };
    json!({
        "specversion": "1.0",
        "id": format!("{user}/{version}"),
        "source": "/users",
        "type": r#type,
        "subject": user,
        "time": "2026-01-01T12:00:00Z",
        "datacontenttype": "application/json",
        "data": { "id": user, "name": name, "email": "ada@example.org", "status": status, "version": version },
    })
}

impl FakeFeed {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Shared>::default();
        let server = serve(listener, state.clone());
        Self { address, state, server }
    }

    /// Is away from now on.
    pub async fn stop(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
        // Those who wait are sent away, too.
        self.state.news.notify_waiters();
    }

    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port");
        self.server = serve(listener, self.state.clone());
    }

    pub fn publish(&self, events: Vec<Value>) {
        self.state.log.lock().expect("unpoisoned").events.extend(events);
        self.state.news.notify_waiters();
    }

    /// What the list of users shows.
    pub fn snapshot_of(&self, events: &[Value]) {
        self.state.log.lock().expect("unpoisoned").users = events.iter().map(|event| event["data"].clone()).collect();
    }

    /// Published when the first page of the list is asked for.
    pub fn publish_during_snapshot(&self, events: Vec<Value>) {
        self.state.log.lock().expect("unpoisoned").during_snapshot = events;
    }

    /// Whether the list of users is refused.
    pub fn refuse_snapshot(&self, refused: bool) {
        self.state.log.lock().expect("unpoisoned").no_snapshot = refused;
    }

    pub fn answer_at_most(&self, events: usize) {
        self.state.log.lock().expect("unpoisoned").at_most = Some(events);
    }

    /// The cursor after all events.
    pub fn end(&self) -> String {
        format!("at-{}", self.state.log.lock().expect("unpoisoned").events.len())
    }

    pub fn asked(&self) -> Vec<String> {
        self.state.log.lock().expect("unpoisoned").asked.clone()
    }

    /// How many wait for events, once somebody does.
    pub async fn waiting(&self) -> usize {
        loop {
            match self.state.log.lock().expect("unpoisoned").waiting {
                0 => {}
                waiting => return waiting,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn serve(listener: TcpListener, state: Arc<Shared>) -> JoinHandle<()> {
    let router = Router::new().fallback(answer).with_state(state);
    tokio::spawn(chassis::http::serve::serve(listener, router, std::future::pending(), || {}))
}

async fn answer(State(state): State<Arc<Shared>>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default().to_owned();
    let parameter =
        |name: &str| query.split('&').find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    state.log.lock().expect("unpoisoned").asked.push(uri.to_string());
    let number = |cursor: Option<String>| cursor.map_or(Some(0), |cursor| cursor.strip_prefix("at-")?.parse::<usize>().ok());
    match uri.path() {
        "/events" if parameter("from").is_some() => {
            let end = state.log.lock().expect("unpoisoned").events.len();
            batch(&[], end)
        }
        "/events" => {
            let Some(after) = number(parameter("after")) else { return refusal(parameter("after").as_deref()) };
            let woken = state.news.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let found = |log: &Log| {
                let events = log.events.get(after..).unwrap_or_default();
                events[..events.len().min(log.at_most.unwrap_or(usize::MAX))].to_vec()
            };
            let mut events = found(&state.log.lock().expect("unpoisoned"));
            if events.is_empty() {
                let waiting = Waiting::new(&state);
                let _ = tokio::time::timeout(Duration::from_secs(10), woken).await;
                drop(waiting);
                events = found(&state.log.lock().expect("unpoisoned"));
            }
            batch(&events, after + events.len())
        }
        _ if state.log.lock().expect("unpoisoned").no_snapshot => StatusCode::NOT_FOUND.into_response(),
        _ => {
            let first = number(parameter("cursor")).expect("a cursor");
            let (users, total) = {
                let mut log = state.log.lock().expect("unpoisoned");
                let news = std::mem::take(&mut log.during_snapshot);
                log.events.extend(news);
                (log.users.iter().skip(first).take(100).cloned().collect::<Vec<_>>(), log.users.len())
            };
            let next = first + users.len();
            let link = format!("</users?cursor=at-{next}>; rel=\"next\"");
            let page = Json(json!({ "items": users }));
            if next < total { ([(header::LINK, link)], page).into_response() } else { page.into_response() }
        }
    }
}

/// Counts one more who waits, for as long as it does.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.log.lock().expect("unpoisoned").waiting += 1;
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.log.lock().expect("unpoisoned").waiting -= 1;
    }
}

/// The feed does not know the cursor, or no longer has what is after it.
fn refusal(cursor: Option<&str>) -> Response {
    let status = if cursor == Some(GONE) { StatusCode::GONE } else { StatusCode::BAD_REQUEST };
    let problem = json!({ "type": "about:blank", "status": status.as_u16() }).to_string();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], problem).into_response()
}

fn batch(events: &[Value], next: usize) -> Response {
    ([(header::LINK, format!("</events?after=at-{next}>; rel=\"next\""))], Json(events)).into_response()
}
