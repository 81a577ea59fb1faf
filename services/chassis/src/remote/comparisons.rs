//! Comparing two ways beside the requests, and not in them: a few at a time, counted by their outcome.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::in_this_context;

/// Comparisons under way at most; further ones are left out, and counted.
const AT_ONCE: usize = 4;
/// What a comparison can come to: see [`Comparisons::count`].
const OUTCOMES: [&str; 5] = ["equal", "mismatch", "newer", "error", "left-out"];

/// Comparisons of one kind.
#[derive(Debug, Clone)]
pub struct Comparisons {
    metric: &'static str,
    free: Arc<Semaphore>,
}

impl Comparisons {
    /// They are counted by `metric`.
    pub fn new(metric: &'static str) -> Self {
        // From the start, so that zero can be told from silence.
        crate::metrics::recorder();
        let comparisons = Self { metric, free: Arc::new(Semaphore::new(AT_ONCE)) };
        OUTCOMES.into_iter().for_each(|outcome| comparisons.count(outcome, 0));
        comparisons
    }

    /// Starts a comparison, unless too many are under way, and returns at once.
    pub fn start(&self, comparison: impl Future<Output = ()> + Send + 'static) {
        let Ok(permit) = self.free.clone().try_acquire_owned() else { return self.count("left-out", 1) };
        tokio::spawn(in_this_context(async move {
            comparison.await;
            drop(permit);
        }));
    }

    /// Counts what was compared: `equal`, `mismatch`, `newer` (it changed between the two looks), `error` (the other way
    /// had no answer).
    pub fn count(&self, outcome: &'static str, number: u64) {
        metrics::counter!(self.metric, "outcome" => outcome).increment(number);
    }
}
