//! What is under way on a client's connection.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::http::timer::Timer;

/// The work on one connection.
#[derive(Debug)]
pub(super) struct Work {
    /// Requests whose head has arrived.
    begun: AtomicUsize,
    /// Requests whose answer is not written yet.
    running: AtomicUsize,
    /// Whether the client does not read what is written.
    is_stalled: AtomicBool,
    opened: Instant,
    /// When the newest answer was written, in milliseconds since `opened`.
    answered: AtomicU64,
    /// The timer of the request before, for the next one.
    timer: Mutex<Timer>,
    /// It changes once, when the server is leaving. Its value has not been looked at.
    leaving: watch::Receiver<bool>,
}

impl Work {
    pub(super) fn new(leaving: watch::Receiver<bool>) -> Self {
        let (begun, running, is_stalled) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let (opened, answered) = (Instant::now(), AtomicU64::new(0));
        Self { begun, running, is_stalled, opened, answered, timer: Mutex::default(), leaving }
    }

    /// Since when no request is under way: now, if one is.
    pub(super) fn idle_since(&self) -> Instant {
        match self.is_busy() {
            true => Instant::now(),
            false => self.opened + Duration::from_millis(self.answered.load(Ordering::Acquire)),
        }
    }

    /// For whoever waits until the server is leaving.
    pub(super) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.clone()
    }

    /// Whether the server is leaving.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.has_changed().unwrap_or(true)
    }

    /// Takes the timer, for the time of a request.
    pub(super) fn take_timer(&self) -> Timer {
        std::mem::take(&mut self.timer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the timer back.
    pub(super) fn keep_timer(&self, timer: Timer) {
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = timer;
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    /// Notes whether the client reads what is written.
    pub(super) fn note_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Release);
    }

    /// Whether a request is under way, or its answer.
    pub(super) fn is_busy(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0 || self.is_stalled.load(Ordering::Acquire)
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.running.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Running(Arc<Work>);

impl Running {
    /// Whether the client should send no other request on the connection.
    pub(super) fn is_last(&self) -> bool {
        self.0.is_leaving()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let answered = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.answered.store(answered, Ordering::Release);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
