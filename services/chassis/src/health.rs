//! The one state of a service's health. `GET /health/ready`, gRPC's health service with its watchers, and the log show it.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::watch;

use crate::auth::Auth;
use crate::error::chain;
use crate::events::consumer::loss;
use crate::http::problem::Problem;
use crate::throttle;

/// How often the state is checked while nobody asks for it.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long watchers have to turn to others before the ports close.
const HEARD: Duration = Duration::from_millis(300);

/// Checks whether the service can do its work now, within a second. The problem says what is missing.
pub type Check = Arc<dyn Fn() -> Checking + Send + Sync>;
/// A check under way.
pub type Checking = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;

/// What a service can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not been checked yet.
    Starting,
    /// It can do its work.
    Ready,
    /// It cannot, for this reason.
    NotReady(String),
    /// It still answers, and will stop.
    Draining,
    /// It answers only what is under way.
    Stopped,
}

impl State {
    /// Whether the service stops, so nothing but [`State::Stopped`] can follow.
    pub fn is_leaving(&self) -> bool {
        matches!(self, Self::Draining | Self::Stopped)
    }
}

/// A service's health. Clones share it.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    check: Check,
    state: watch::Sender<State>,
    is_watched: AtomicBool,
}

impl Health {
    /// The health that `check` finds.
    pub fn new(check: Check) -> Self {
        Self(Arc::new(Inner { check, state: watch::Sender::new(State::Starting), is_watched: AtomicBool::new(false) }))
    }

    /// The same, which also needs the keys of `auth`.
    #[must_use]
    pub fn and(&self, auth: Auth) -> Self {
        let check = self.0.check.clone();
        Self::new(Arc::new(move || {
            let (checking, keys) = (check(), auth.check());
            Box::pin(async move { checking.await.and(keys) })
        }))
    }

    /// Checks now.
    ///
    /// # Errors
    /// 503 with the reason.
    pub async fn check(&self) -> Result<(), Problem> {
        if self.state().is_leaving() {
            return Err(Problem::unavailable("the service is stopping"));
        }
        let checked = (self.0.check)().await.and_then(|()| loss::check());
        self.turn(match &checked {
            Ok(()) => State::Ready,
            Err(problem) => {
                State::NotReady(problem.cause().map_or_else(|| problem.detail().to_owned(), |cause| chain(&**cause)))
            }
        });
        checked
    }

    /// The state as it was last seen.
    pub fn state(&self) -> State {
        self.0.state.borrow().clone()
    }

    /// The state and its changes. From the first call on, it is checked at intervals.
    pub fn watch(&self) -> watch::Receiver<State> {
        if !self.0.is_watched.swap(true, Ordering::Relaxed) {
            let health = self.clone();
            tokio::spawn(async move {
                while !health.state().is_leaving() {
                    // The state has the outcome.
                    let _ = health.check().await;
                    tokio::time::sleep(INTERVAL).await;
                }
            });
        }
        self.0.state.subscribe()
    }

    /// Serves by `served` to its end: exit code 0. Exit code 1 if the service has not been ready once within `limit` from
    /// now.
    ///
    /// # Errors
    /// Those of `served`.
    pub async fn serving(
        self,
        limit: Option<Duration>,
        served: impl Future<Output = Result<(), String>>,
    ) -> Result<ExitCode, String> {
        tokio::select! {
            ended = served => ended.map(|()| ExitCode::SUCCESS),
            () = self.never_ready(limit) => Ok(ExitCode::FAILURE),
        }
    }

    /// Resolves, and logs why, if the service has not been ready once within `limit` from now.
    async fn never_ready(&self, limit: Option<Duration>) {
        let mut states = self.watch();
        let waited = states.wait_for(|state| *state == State::Ready || state.is_leaving());
        if let Some(limit) = limit
            && tokio::time::timeout(limit, waited).await.is_err()
        {
            let error = match self.state() {
                State::NotReady(reason) => reason,
                _ => "the database has not answered".to_owned(),
            };
            tracing::error!(error, "not ready within STARTUP_TIMEOUT ({limit:?}): the service ends");
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves, in each of its clones, when the service must stop answering: `delay` after `signal`, and not before
    /// watchers have heard of it. In between it still answers, but says that it is not ready, so that balancers turn to
    /// others.
    pub fn stopping(
        &self,
        signal: impl Future<Output = ()> + Send + 'static,
        delay: Duration,
    ) -> Shared<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let health = self.clone();
        let stopping: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            signal.await;
            health.turn(State::Draining);
            let is_watched = health.0.state.receiver_count() > 0;
            tokio::time::sleep(if is_watched { delay.max(HEARD) } else { delay }).await;
            health.turn(State::Stopped);
        });
        stopping.shared()
    }

    /// Changes the state, and logs that.
    fn turn(&self, to: State) {
        self.0.state.send_if_modified(|state| {
            if *state == to || (state.is_leaving() && to != State::Stopped) {
                return false;
            }
            match &to {
                State::Ready => tracing::info!("ready"),
                // The reason may change from check to check.
                State::NotReady(error) => {
                    if let Some(omitted) = throttle::line("not ready") {
                        tracing::warn!(error, omitted, "not ready");
                    }
                }
                State::Draining => tracing::info!("stopping: not ready any more"),
                State::Starting | State::Stopped => {}
            }
            *state = to;
            true
        });
    }
}
