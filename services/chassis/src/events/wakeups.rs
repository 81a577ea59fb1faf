//! Waiting for events inside one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Wakes tasks that wait for events. A wake-up is only a hint: it does not reach other processes of the service, so a
/// waiting task polls as well.
#[derive(Debug, Clone, Default)]
pub struct Wakeups(Arc<Waiters>);

#[derive(Debug)]
struct Waiters {
    notify: Arc<Notify>,
    closing: Notify,
    closed: AtomicBool,
    long_polls: AtomicUsize,
    most_long_polls: AtomicUsize,
}

impl Default for Waiters {
    fn default() -> Self {
        let (notify, closing, closed) = Default::default();
        Self { notify, closing, closed, long_polls: AtomicUsize::new(0), most_long_polls: AtomicUsize::new(usize::MAX) }
    }
}

/// The first pause between two polls; each pause is twice the one before, up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two polls: an event of another instance waits no longer than this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A long poll under way.
#[derive(Debug)]
pub(super) struct LongPoll(Arc<Waiters>);

impl Drop for LongPoll {
    fn drop(&mut self) {
        self.0.long_polls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wakeups {
    /// Wakes all waiting tasks: an event was committed.
    pub fn wake(&self) {
        self.0.notify.notify_waiters();
    }

    /// Ends all waits, present and future, because the service stops.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
        self.0.closing.notify_waiters();
    }

    /// The same, with a limit on the long polls of the feed.
    #[must_use]
    pub fn at_most(&self, long_polls: u32) -> Self {
        self.0.most_long_polls.store(long_polls as usize, Ordering::Relaxed);
        self.clone()
    }

    /// Counts a long poll, until the value is dropped. `None` if there are too many.
    pub(super) fn begin_long_poll(&self) -> Option<LongPoll> {
        let poll = LongPoll(self.0.clone());
        let before = self.0.long_polls.fetch_add(1, Ordering::Relaxed);
        (before < self.0.most_long_polls.load(Ordering::Relaxed)).then_some(poll)
    }

    /// Resolves at the next wake-up after this call.
    pub(super) fn woken(&self) -> impl Future<Output = ()> {
        let mut woken = Box::pin(self.0.notify.clone().notified_owned());
        woken.as_mut().enable();
        woken
    }

    /// Resolves once the service stops.
    pub(super) async fn closed(&self) {
        let closing = self.0.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if !self.0.closed.load(Ordering::Acquire) {
            closing.await;
        }
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
