//! Events that were gone before this process read them: for each service, until the inbox has been refilled.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::http::problem::Problem;

/// For each service whose events are lost, the reason.
static LOST: Mutex<BTreeMap<&'static str, String>> = Mutex::new(BTreeMap::new());

fn lost() -> MutexGuard<'static, BTreeMap<&'static str, String>> {
    LOST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gauge(of: &'static str) -> metrics::Gauge {
    metrics::gauge!("event_refill_pending", "of" => of)
}

/// Notes that events of a service are lost. They are logged and counted once, until [`end`].
pub(super) fn begin(of: &'static str, reason: &str) {
    if lost().insert(of, reason.to_owned()).is_none() {
        tracing::error!(of, reason, "events were gone before they were read: what they changed is read anew");
        metrics::counter!("event_gaps_total", "of" => of).increment(1);
        gauge(of).set(1.0);
    }
}

/// Notes that what the lost events changed has been read anew, or that another process does it now.
pub(super) fn end(of: &'static str) {
    lost().remove(of);
    gauge(of).set(0.0);
}

/// Whether this process misses no events.
///
/// # Errors
/// 503 that names the service whose events are lost.
pub(crate) fn check() -> Result<(), Problem> {
    match lost().first_key_value() {
        None => Ok(()),
        Some((of, reason)) => {
            Err(Problem::unavailable(format!("events of {of} were lost, and its data is being read anew: {reason}")))
        }
    }
}
