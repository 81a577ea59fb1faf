//! Calls to another service: with a deadline, a bounded retry, a circuit breaker, and the request's own ids passed on.
//! One guard, whatever the protocol.

pub mod breaker;
mod comparisons;
mod context;
mod grpc;
mod http;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};

use breaker::{Breaker, Refused, State};
pub use comparisons::Comparisons;
pub(crate) use context::CallContext;
pub use context::in_this_context;
pub use grpc::Grpc;
pub use http::{Answer, Http};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

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

impl BaseUrl {
    fn as_str(&self) -> &str {
        &self.0
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

/// Another service, and how callers guard themselves and it. Clones share breaker and budget.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    name: &'static str,
    limits: Limits,
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
    Unreachable(&'static str, #[source] BoxError),
    /// The answer broke off, or is too long.
    #[error("the answer of {0} broke off")]
    Broken(&'static str, #[source] BoxError),
    /// It says that it cannot do its work now, or what its contract does not have.
    #[error("{0} answered {1}")]
    Status(&'static str, String),
    /// The answer is not what its contract says.
    #[error("the answer of {0} cannot be read")]
    Unreadable(&'static str, #[source] BoxError),
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

impl Remote {
    /// The service called `name` in metrics and logs.
    fn new(name: &'static str, limits: Limits) -> Self {
        let budget = TpsBudget::new(Duration::from_secs(10), RETRIES_PER_SECOND, RETRY_SHARE);
        Self(Arc::new(Neighbour { name, limits, breaker: Breaker::default(), budget }))
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Where its circuit breaker stands.
    pub fn breaker(&self) -> State {
        self.0.breaker.state()
    }

    /// A call that may be repeated without harm, and is, a few times and within a budget. `attempt` is told when it must be
    /// over; its error is a failure of the other service.
    async fn call<T, F>(&self, attempt: impl Fn(Instant) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let neighbour = &*self.0;
        let answer = neighbour.call(attempt).await;
        let outcome = answer.as_ref().map_or_else(RemoteError::outcome, |_| "answered");
        metrics::counter!("remote_calls_total", "service" => neighbour.name, "outcome" => outcome).increment(1);
        answer
    }
}

impl Neighbour {
    async fn call<T, F>(&self, attempt: impl Fn(Instant) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
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
            let answer = tokio::time::timeout_at(limit, attempt(limit)).await;
            let error = match answer.unwrap_or(Err(RemoteError::Late(self.name))) {
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
