//! Comparisons of two ways to the same answer. They run beside the requests, a few at a time, and are counted by outcome.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::context::in_this_context;

/// The most comparisons at once. Further ones are skipped, and counted as `left-out`.
const AT_ONCE: usize = 4;
/// The outcomes of a comparison: see [`Comparisons::count`].
const OUTCOMES: [&str; 5] = ["equal", "mismatch", "newer", "error", "left-out"];

/// Comparisons of one kind.
#[derive(Debug, Clone)]
pub struct Comparisons {
    metric: &'static str,
    free: Arc<Semaphore>,
}

impl Comparisons {
    /// Comparisons counted by the metric called `metric`.
    pub fn new(metric: &'static str) -> Self {
        // Every outcome is exported from the start, so that an operator sees zero rather than no series.
        crate::metrics::recorder();
        metrics::describe_counter!(metric, metrics::Unit::Count, "Comparisons with the other way, by outcome.");
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

    /// Counts an outcome: `equal`, `mismatch`, `newer` (the value changed between the two reads), `error` (the other way
    /// gave no answer).
    pub fn count(&self, outcome: &'static str, number: u64) {
        metrics::counter!(self.metric, "outcome" => outcome).increment(number);
    }
}
