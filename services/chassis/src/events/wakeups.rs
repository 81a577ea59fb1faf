//! Waiting for events inside one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Wakes tasks that wait for events. A wake-up is only a hint: it does not reach other processes of the service, so a
/// waiting task polls as well.
#[derive(Debug, Clone, Default)]
pub struct Wakeups(Arc<Waiters>);

#[derive(Debug, Default)]
struct Waiters {
    notify: Notify,
    closed: AtomicBool,
}

/// The first pause between two polls; each pause is twice the one before, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two polls: an event of another instance waits no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Wakeups {
    /// Wakes all waiting tasks: an event was committed.
    pub fn wake(&self) {
        self.0.notify.notify_waiters();
    }

    /// Ends all waits, present and future, because the service stops.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Calls `fetch` until it finds something or `wait` has passed.
    ///
    /// # Errors
    /// The first error of `fetch`.
    pub async fn poll<T, E, F>(&self, wait: Duration, fetch: impl Fn() -> F) -> Result<Vec<T>, E>
    where
        F: Future<Output = Result<Vec<T>, E>>,
    {
        let deadline = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            // Listening starts before the fetch, so that an event committed in between is not missed.
            let woken = self.0.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let found = fetch().await?;
            if !found.is_empty() || Instant::now() >= deadline || self.0.closed.load(Ordering::Acquire) {
                return Ok(found);
            }
            tokio::select! {
                // An event was committed. If an older transaction withholds it, a short pause finds it soon.
                () = woken => pause = FIRST_PAUSE,
                () = tokio::time::sleep_until(deadline.min(Instant::now() + pause)) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
