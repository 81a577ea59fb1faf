//! The calls of a server: which are under way, how many are worked on, and what each one's method is called.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task_local;

use crate::metrics::OTHER_METHOD;

/// The most calls that are worked on at once. Further ones wait.
const MAX_CALLS: usize = 10_000;

/// The calls of one server. One is under way from the moment at which its message has been read, until its answer. One whose
/// caller is admitted takes a place. So a call that sends no message, or has no token, takes nobody's place, and neither do
/// checks of the health.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    under_way: watch::Sender<usize>,
    places: Arc<Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { under_way: watch::Sender::new(0), places: Arc::new(Semaphore::new(MAX_CALLS)) }
    }
}

/// The name of a call's method, once it is under way. Until then it is the client's own word, and no label of a metric.
#[derive(Debug, Clone, Default)]
pub(super) struct Name(Arc<OnceLock<&'static str>>);

impl Name {
    /// The name for metrics.
    pub fn read(&self) -> &'static str {
        self.0.get().copied().unwrap_or(OTHER_METHOD)
    }
}

task_local! {
    static CALL: (Calls, Name);
}

impl Calls {
    /// Runs a call as one of these.
    pub fn within<F: Future>(self, name: Name, call: F) -> impl Future<Output = F::Output> {
        CALL.scope((self, name), call)
    }

    /// Waits until none is under way.
    pub async fn ended(&self) {
        // The sender is here, so it does not fail.
        let _ = self.under_way.subscribe().wait_for(|calls| *calls == 0).await;
    }
}

/// A call that is under way, until it is dropped.
pub(super) struct UnderWay(watch::Sender<usize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

/// Begins the call that runs, of this method. `None` outside a server.
pub(super) fn begin(method: &'static str) -> Option<UnderWay> {
    let begun = CALL.try_with(|(calls, name)| {
        // A call has one method.
        let _ = name.0.set(method);
        calls.under_way.send_modify(|calls| *calls += 1);
        UnderWay(calls.under_way.clone())
    });
    begun.ok()
}

/// A place for the call that runs, for as long as it is held. `None` outside a server.
pub(super) async fn place() -> Option<OwnedSemaphorePermit> {
    let places = CALL.try_with(|(calls, _)| calls.places.clone()).ok()?;
    places.acquire_owned().await.ok()
}
