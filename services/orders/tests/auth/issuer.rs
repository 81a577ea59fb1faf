//! An issuer with an address of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use dev::issuer::{SigningKey, jwks};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// An issuer that answers by HTTP. Dropping it takes it away.
pub struct Issuer {
    pub address: SocketAddr,
    published: Arc<Published>,
    server: JoinHandle<()>,
}

struct Published {
    issuer: String,
    keys: Mutex<Value>,
    reads: AtomicUsize,
    grant: Mutex<(StatusCode, Value)>,
    asked: Mutex<Vec<Asked>>,
}

/// A request for a token: its fields `Authorization` and `Content-Type`, and its body.
pub type Asked = (String, String, String);

impl Issuer {
    pub async fn start(keys: &[&SigningKey]) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), keys).await
    }

    pub async fn start_at(address: SocketAddr, keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let issuer = format!("http://{address}");
        let grant = Mutex::new((StatusCode::BAD_REQUEST, json!({ "error": "unauthorized_client" })));
        let published =
            Published { issuer, keys: Mutex::default(), reads: AtomicUsize::new(0), grant, asked: Mutex::default() };
        let published = Arc::new(published);
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discover))
            .route("/keys", get(read_keys))
            .route("/token", post(give_token))
            .with_state(published.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        let issuer = Self { address, published, server };
        issuer.publish(keys);
        issuer
    }

    pub fn publish(&self, keys: &[&SigningKey]) {
        *self.published.keys.lock().expect("whole") = jwks(keys.iter().copied());
    }

    /// Answers requests for a token so from now on.
    pub fn grant(&self, status: u16, answer: Value) {
        *self.published.grant.lock().expect("whole") = (StatusCode::from_u16(status).expect("a status"), answer);
    }

    /// The requests for a token so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.published.asked.lock().expect("whole").clone()
    }

    /// As in the claim `iss`.
    pub fn url(&self) -> String {
        self.published.issuer.clone()
    }

    /// How often the keys were read.
    pub fn reads(&self) -> usize {
        self.published.reads.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn discover(State(published): State<Arc<Published>>) -> axum::Json<Value> {
    let issuer = &published.issuer;
    let (keys, tokens) = (format!("{issuer}/keys"), format!("{issuer}/token"));
    axum::Json(json!({ "issuer": issuer, "jwks_uri": keys, "token_endpoint": tokens }))
}

async fn give_token(State(published): State<Arc<Published>>, headers: HeaderMap, body: String) -> (StatusCode, Json<Value>) {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    published.asked.lock().expect("whole").push((field("authorization"), field("content-type"), body));
    let (status, answer) = published.grant.lock().expect("whole").clone();
    (status, Json(answer))
}

async fn read_keys(State(published): State<Arc<Published>>) -> axum::Json<Value> {
    published.reads.fetch_add(1, Ordering::SeqCst);
    axum::Json(published.keys.lock().expect("whole").clone())
}
