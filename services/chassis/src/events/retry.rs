//! Pauses after failures, and log lines that do not repeat.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::throttle;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The pauses after consecutive failures: each is twice the one before, up to [`Pauses::LONGEST`], with jitter.
#[derive(Debug)]
pub struct Pauses(ExponentialBackoff);

impl Default for Pauses {
    fn default() -> Self {
        let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(Self::LONGEST);
        Self(pauses.without_max_times().with_jitter().build())
    }
}

impl Pauses {
    /// The longest pause.
    pub const LONGEST: Duration = Duration::from_secs(5);

    /// The next pause.
    #[expect(clippy::should_implement_trait, reason = "an iterator may end, pauses do not")]
    pub fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(Self::LONGEST)
    }
}

/// Logs each obstacle on the way of a log's events once, for as long as it lasts.
#[derive(Debug)]
pub struct Trouble {
    /// The service or topic whose events are affected.
    of: &'static str,
    /// What does not happen to the events now: "published" or "consumed".
    activity: &'static str,
    /// Every error logged since the trouble began. An unreachable cluster causes several errors in turn.
    logged: Mutex<BTreeSet<String>>,
}

impl Trouble {
    /// No trouble yet. Messages will say that the events of `of` are not `activity`.
    pub fn new(of: &'static str, activity: &'static str) -> Self {
        Self { of, activity, logged: Mutex::default() }
    }

    /// The service or topic whose events are affected.
    pub fn of(&self) -> &'static str {
        self.of
    }

    /// Logs this error, unless it has been logged since the trouble began.
    pub fn report(&self, error: String) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        // Trouble may begin and end many times a second.
        if !logged.contains(&error)
            && let Some(omitted) = throttle::line(&format!("{} {} {error}", self.of, self.activity))
        {
            tracing::warn!(of = self.of, error, omitted, "events are not {} now", self.activity);
            logged.insert(error);
        }
    }

    /// Logs that the trouble is over, if there was any.
    pub fn end(&self) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if !logged.is_empty() {
            tracing::info!(of = self.of, "events are {} again", self.activity);
            logged.clear();
        }
    }
}
