//! Calls to another service: with a deadline, a bounded retry, a circuit breaker, and the request's own ids passed on.

pub mod breaker;
mod context;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, Uri};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};

use breaker::{Breaker, Refused, State};
pub(crate) use context::CallContext;
pub use context::in_this_context;

/// Attempts of one call at most.
const ATTEMPTS: usize = 3;
/// The pause before the first repetition; it doubles, and is stretched by up to as much again at random, so that clients
/// who failed together do not come back together.
const PAUSE: Duration = Duration::from_millis(20);
/// Repetitions may add this share to the calls, so that a neighbour in trouble gets no more of it; and a few a second in
/// any case, so that a rare call can be repeated too.
const RETRY_SHARE: f32 = 0.2;
const RETRIES_PER_SECOND: u32 = 5;
/// The largest answer read, in bytes: a page of a hundred things fits many times.
const MAX_ANSWER: usize = 1024 * 1024;

/// Where another service is reached: `http://host:port`, with nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl FromStr for BaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "must be http://host:port";
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let plain = uri.path() == "/" && uri.query().is_none();
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) if plain && !authority.as_str().contains('@') => {
                Ok(Self(format!("http://{authority}")))
            }
            (Some("https"), _) => {
                Err("must be http://host:port: encrypt between services outside of them, with a proxy or a mesh")
            }
            _ => Err(SHAPE),
        }
    }
}

impl From<std::net::SocketAddr> for BaseUrl {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(format!("http://{address}"))
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until a connection is open.
    pub connect: Duration,
    /// One attempt.
    pub attempt: Duration,
    /// All attempts together.
    pub call: Duration,
}

impl Default for Limits {
    /// Limits for a neighbour in the same network, while somebody waits.
    fn default() -> Self {
        Self { connect: Duration::from_millis(250), attempt: Duration::from_millis(400), call: Duration::from_secs(1) }
    }
}

/// Another service. Clones share connections, breaker and budget.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    name: &'static str,
    base: BaseUrl,
    limits: Limits,
    client: Client<HttpConnector, Empty<Bytes>>,
    breaker: Breaker,
    budget: TpsBudget,
}

/// There is no answer to be had now. Trying again later may help.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It failed again and again, so it is not asked for a while.
    #[error("{0} is not asked for a while")]
    Refused(&'static str, #[source] Refused),
    /// Nothing came in time.
    #[error("{0} did not answer in time")]
    Late(&'static str),
    /// No connection, or one that broke.
    #[error("{0} cannot be reached")]
    Unreachable(&'static str, #[source] hyper_util::client::legacy::Error),
    /// The answer broke off, or is too long.
    #[error("the answer of {0} broke off")]
    Broken(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It says that it cannot do its work now.
    #[error("{0} answered {1}")]
    Status(&'static str, StatusCode),
    /// The answer is not what its contract says.
    #[error("the answer of {0} cannot be read")]
    Unreadable(&'static str, #[source] serde_json::Error),
}

impl RemoteError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(..) => "refused",
            Self::Late(_) => "late",
            Self::Unreachable(..) | Self::Broken(..) => "broken",
            Self::Status(..) => "status",
            Self::Unreadable(..) => "unreadable",
        }
    }
}

/// An answer that is no failure of the other service: a status below 500.
#[derive(Debug)]
pub struct Answer {
    neighbour: &'static str,
    /// The status.
    pub status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The body.
    ///
    /// # Errors
    /// If it is not what the contract says.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, RemoteError> {
        serde_json::from_slice(&self.body).map_err(|error| RemoteError::Unreadable(self.neighbour, error))
    }

    /// The error for a status that the contract does not have here.
    pub fn unexpected(&self) -> RemoteError {
        RemoteError::Status(self.neighbour, self.status)
    }
}

impl Remote {
    /// The service called `name` in metrics and logs.
    pub fn new(name: &'static str, base: BaseUrl, limits: Limits) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits.connect));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let budget = TpsBudget::new(Duration::from_secs(10), RETRIES_PER_SECOND, RETRY_SHARE);
        Self(Arc::new(Neighbour { name, base, limits, client, breaker: Breaker::default(), budget }))
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Where its circuit breaker stands.
    pub fn breaker(&self) -> State {
        self.0.breaker.state()
    }

    /// `GET path`, which may be repeated without harm, and is, a few times and within a budget.
    ///
    /// # Errors
    /// [`RemoteError`], within the limits.
    pub async fn get(&self, path: &str) -> Result<Answer, RemoteError> {
        let neighbour = &*self.0;
        let answer = neighbour.get(path).await;
        let outcome = answer.as_ref().map_or_else(RemoteError::outcome, |_| "answered");
        metrics::counter!("remote_calls_total", "service" => neighbour.name, "outcome" => outcome).increment(1);
        answer
    }
}

impl Neighbour {
    async fn get(&self, path: &str) -> Result<Answer, RemoteError> {
        let deadline = Instant::now() + self.limits.call;
        let pauses = ExponentialBuilder::new().with_min_delay(PAUSE).with_max_times(ATTEMPTS - 1).with_jitter();
        let mut pauses = pauses.build();
        self.budget.deposit();
        let mut last = None;
        loop {
            let permit = match (self.breaker.admit(), last.take()) {
                (Ok(permit), _) => permit,
                // Others failed meanwhile. What this call met itself says more.
                (Err(_), Some(error)) => return Err(error),
                (Err(refused), None) => return Err(RemoteError::Refused(self.name, refused)),
            };
            let limit = deadline.min(Instant::now() + self.limits.attempt);
            let attempt = tokio::time::timeout_at(limit, self.attempt(path)).await;
            let error = match attempt.unwrap_or(Err(RemoteError::Late(self.name))) {
                Ok(answer) => {
                    permit.succeeded();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            permit.failed();
            let Some(pause) = pauses.next().filter(|pause| Instant::now() + *pause < deadline) else { return Err(error) };
            if self.breaker.state() != State::Closed || !self.budget.withdraw() {
                return Err(error);
            }
            last = Some(error);
            metrics::counter!("remote_retries_total", "service" => self.name).increment(1);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, path: &str) -> Result<Answer, RemoteError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = format!("{}{path}", self.base.0).parse().expect("a path that the service itself made");
        *request.headers_mut() = CallContext::headers();
        let response = self.client.request(request).await.map_err(|error| RemoteError::Unreachable(self.name, error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| RemoteError::Broken(self.name, error))?;
        if head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(RemoteError::Status(self.name, head.status));
        }
        Ok(Answer { neighbour: self.name, status: head.status, body: body.to_bytes() })
    }
}

/// Sets the gauge of a neighbour's breaker: 0 closed, 1 half-open, 2 open.
pub fn gauge_breaker(remote: &Remote) {
    let level = match remote.breaker() {
        State::Closed => 0.0,
        State::HalfOpen => 1.0,
        State::Open => 2.0,
    };
    metrics::gauge!("circuit_breaker_state", "service" => remote.name()).set(level);
}
