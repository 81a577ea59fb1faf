//! The calls of a server: how many are worked on, and what each one's method is called.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task_local;

use crate::metrics::OTHER_METHOD;

/// The most calls that are worked on at once. Further ones wait.
const MAX_CALLS: u32 = 10_000;

/// The calls of one server. A call counts from the moment at which its message was read and its caller admitted, until its
/// answer. So one that sends no message takes nobody's place, and neither do checks of the health.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Semaphore>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CALLS as usize)))
    }
}

/// The name of a call's method, once its caller is admitted. Until then it is the client's own word, and no label of a
/// metric.
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

    /// Waits until none is worked on.
    pub async fn ended(&self) {
        drop(self.0.acquire_many(MAX_CALLS).await);
    }
}

/// A place for this call of `method` among those that are worked on, for as long as it is held. `None` outside a server.
pub(super) async fn place(method: &'static str) -> Option<OwnedSemaphorePermit> {
    let named = CALL.try_with(|(calls, name)| {
        // A call has one method.
        let _ = name.0.set(method);
        calls.0.clone()
    });
    let calls = named.ok()?;
    calls.acquire_owned().await.ok()
}
