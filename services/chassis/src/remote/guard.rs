//! The guard around every call, whatever the protocol: deadline, retry, circuit breaker, counters.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};

use super::breaker::{Breaker, Refused, State};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The most attempts of one call.
const ATTEMPTS: usize = 3;
/// The pause before the first retry. It doubles each time. A random part of up to the same length is added, so that clients
/// that failed together do not retry together.
const PAUSE: Duration = Duration::from_millis(20);
/// Retries may add this share to the calls, so that an overloaded service gets little extra load.
const RETRY_SHARE: f32 = 0.2;
/// Retries allowed per second in any case, so that a rare call can be retried too.
const RETRIES_PER_SECOND: u32 = 5;

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To open a connection.
    pub connect: Duration,
    /// For one attempt.
    pub attempt: Duration,
    /// For all attempts together.
    pub call: Duration,
}

impl Default for Limits {
    /// Limits for a service in the same network, while a client waits for the answer.
    fn default() -> Self {
        Self { connect: Duration::from_millis(250), attempt: Duration::from_millis(400), call: Duration::from_secs(1) }
    }
}

/// Another service, with its circuit breaker and its budget of retries. Clones share both.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    name: &'static str,
    limits: Limits,
    breaker: Breaker,
    budget: TpsBudget,
}

/// The other service gave no usable answer. A later call may succeed.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Earlier calls failed, so the circuit breaker refused this one.
    #[error("{0} failed several times and is not called for a while")]
    Refused(&'static str, #[source] Refused),
    /// The deadline passed without an answer.
    #[error("{0} did not answer in time")]
    Late(&'static str),
    /// The connection could not be opened, or it broke.
    #[error("{0} cannot be reached")]
    Unreachable(&'static str, #[source] BoxError),
    /// The answer ended early, or is too long.
    #[error("the answer of {0} ended early or is too long")]
    Broken(&'static str, #[source] BoxError),
    /// A status that reports a failure, or that the contract does not have.
    #[error("{0} answered {1}")]
    Status(&'static str, String),
    /// The body does not fit the contract.
    #[error("the answer of {0} cannot be read")]
    Unreadable(&'static str, #[source] BoxError),
}

impl RemoteError {
    /// What the metrics and the traces call it.
    pub(super) fn outcome(&self) -> &'static str {
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
    pub(super) fn new(name: &'static str, limits: Limits) -> Self {
        let budget = TpsBudget::new(Duration::from_secs(10), RETRIES_PER_SECOND, RETRY_SHARE);
        Self(Arc::new(Neighbour { name, limits, breaker: Breaker::new(name), budget }))
    }

    /// The service's name in metrics and logs.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The state of its circuit breaker.
    pub fn breaker(&self) -> State {
        self.0.breaker.state()
    }

    /// Calls the other service and retries a failure, a few times and within a budget. So the call must be safe to repeat.
    /// `attempt` gets its deadline; its error counts as a failure of the other service.
    pub(super) async fn call<T, F>(&self, attempt: impl Fn(Instant) -> F) -> Result<T, RemoteError>
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
                // Other calls opened the breaker. This call's own error says more.
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

/// Sets the gauge of a service's circuit breaker: 0 closed, 1 half-open, 2 open.
pub fn gauge_breaker(remote: &Remote) {
    let level = match remote.breaker() {
        State::Closed => 0.0,
        State::HalfOpen => 1.0,
        State::Open => 2.0,
    };
    metrics::gauge!("circuit_breaker_state", "service" => remote.name()).set(level);
}
