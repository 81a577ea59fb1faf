//! How long requests waited for the newest switch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The requests that were under way when this process followed a switch.
pub(crate) struct Waits {
    begun: Instant,
    /// Microseconds from `begun` to the newest switch; 0 before the first one. A request compares them, and nothing more.
    followed: AtomicU64,
    seen: Mutex<Seen>,
}

/// What is known of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many have ended.
    pub(crate) requests: u64,
    /// The longest time from the begin of one to its end.
    pub(crate) longest: Duration,
}

impl Waits {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), followed: AtomicU64::new(0), seen: Mutex::default() }
    }

    /// Notes that this process follows a switch now.
    pub(crate) fn begin(&self) {
        *self.lock() = Seen::default();
        self.followed.store(self.micros(Instant::now()).max(1), Ordering::Relaxed);
    }

    /// Notes the end of a request.
    pub(crate) fn note(&self, begun: Instant) {
        if self.micros(begun) >= self.followed.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.lock();
        seen.requests += 1;
        seen.longest = seen.longest.max(begun.elapsed());
    }

    /// What is known of the newest switch.
    pub(crate) fn seen(&self) -> Seen {
        *self.lock()
    }

    /// What splitctl may know, as the contract in `splitctl/contract/switches.sql` says it.
    pub(crate) fn report(&self, owner: &str, generation: i64, is_complete: bool) -> String {
        let Seen { requests, longest } = self.seen();
        let milliseconds = longest.as_secs_f64() * 1000.0;
        let rest =
            if is_complete { format!(r#","requests":{requests},"longest_ms":{milliseconds:.1}"#) } else { String::new() };
        format!(r#"{{"owner":"{owner}","generation":{generation}{rest}}}"#)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_requests_that_were_under_way_at_the_switch_count() {
        let waits = Waits::new();
        let pass = || tokio::time::sleep(Duration::from_millis(2));
        pass().await;
        waits.note(Instant::now());
        assert_eq!(waits.seen(), Seen::default());
        let before = Instant::now();
        pass().await;
        waits.begin();
        pass().await;
        waits.note(before);
        waits.note(Instant::now());
        let seen = waits.seen();
        assert!(seen.requests == 1 && seen.longest >= Duration::from_millis(4), "{seen:?}");
        waits.begin();
        assert_eq!(waits.seen(), Seen::default());
    }
}
