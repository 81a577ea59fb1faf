//! Timers of a client's connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A timer for one request after another. Each of tokio's timers begins and ends under a lock of the runtime, for which its
/// threads wait. A timer that goes on is set to a later time without it, and goes off once in all that time.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Sets it to `limit`.
    pub(super) fn set(&mut self, limit: Instant) {
        self.0.get_or_insert_with(|| Box::pin(sleep_until(limit))).as_mut().reset(limit);
    }

    /// Ready once the time has come to which it was set last.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(context))
    }

    /// What `work` brings, or `None` at `limit`.
    pub(super) async fn until<T>(&mut self, limit: Instant, work: impl Future<Output = T>) -> Option<T> {
        self.set(limit);
        tokio::select! {
            biased;
            done = work => Some(done),
            // Without a budget: work that uses it up must end, too.
            () = unconstrained(poll_fn(|context| self.poll(context))) => None,
        }
    }
}

/// A timer that exists only while it is needed: in most requests no client is slow.
#[derive(Debug, Default)]
pub(crate) struct RareTimer(Option<Pin<Box<Sleep>>>);

impl RareTimer {
    /// Starts the timer unless it runs. An error once `limit` has passed.
    pub(crate) fn poll(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.0.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Whether the timer ran until now.
    pub(crate) fn stop(&mut self) -> bool {
        self.0.take().is_some()
    }
}
