//! How far a broker is behind this service's own log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A topic, and the kind of broker that has it.
type Key = (&'static str, &'static str);

/// For each log that this process publishes, when it was last known that every event up to then is published.
static PUBLISHED_UP_TO: Mutex<BTreeMap<Key, Instant>> = Mutex::new(BTreeMap::new());

fn published_up_to() -> MutexGuard<'static, BTreeMap<Key, Instant>> {
    PUBLISHED_UP_TO.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gauge((topic, via): Key) -> metrics::Gauge {
    metrics::gauge!("relay_lag_seconds", "topic" => topic, "via" => via)
}

/// This process publishes a service's log, until the value is dropped.
#[derive(Debug)]
pub struct RelayLag(Key);

impl RelayLag {
    /// Begins to publish the log of the service whose topic is `topic`, to the kind of broker `via`.
    pub fn begin(topic: &'static str, via: &'static str) -> Self {
        published_up_to().insert((topic, via), Instant::now());
        Self((topic, via))
    }

    /// Notes what the log said just now: when its oldest unpublished event happened; `None` if everything is published.
    pub fn observe(&self, oldest: Option<DateTime<Utc>>) {
        // This machine's clock may be behind.
        let age = oldest.map_or(Duration::ZERO, |oldest| (Utc::now() - oldest).to_std().unwrap_or_default());
        Instant::now().checked_sub(age).and_then(|up_to| published_up_to().insert(self.0, up_to));
    }
}

impl Drop for RelayLag {
    fn drop(&mut self) {
        published_up_to().remove(&self.0);
        // Another process publishes now, and knows the lag.
        gauge(self.0).set(0.0);
    }
}

/// Sets the gauges of the lags. They grow while nothing proves that everything is published.
pub(crate) fn record_gauges() {
    for (key, up_to) in &*published_up_to() {
        gauge(*key).set(up_to.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_lag_is_the_age_of_the_oldest_unpublished_event_and_grows_in_silence() {
        let lag = |topic: &'static str| published_up_to()[&(topic, "a broker")].elapsed();
        let relay = RelayLag::begin("things", "a broker");
        relay.observe(Some(Utc::now() - chrono::TimeDelta::seconds(60)));
        let (earlier, pause) = (lag("things"), Duration::from_millis(5));
        assert!(earlier >= Duration::from_secs(60) && earlier < Duration::from_secs(90));
        tokio::time::sleep(pause).await;
        assert!(lag("things") >= earlier + pause);
        relay.observe(None);
        assert!(lag("things") < Duration::from_secs(5));
        drop(relay);
        assert!(!published_up_to().contains_key(&("things", "a broker")));
    }
}
