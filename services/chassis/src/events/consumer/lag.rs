//! How far this process is behind the events of another service.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;

use super::inbox::{Inbox, Received};
use super::loss;

/// For each service that is followed, when everything up to then was last known to be read.
static READ_UP_TO: Mutex<BTreeMap<&'static str, Instant>> = Mutex::new(BTreeMap::new());

fn read_up_to() -> MutexGuard<'static, BTreeMap<&'static str, Instant>> {
    READ_UP_TO.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gauge(of: &'static str) -> metrics::Gauge {
    metrics::gauge!("event_lag_seconds", "of" => of)
}

/// This process follows the events of a service, until the value is dropped.
#[derive(Debug)]
pub struct Follower(&'static str);

impl Follower {
    /// Begins to follow `service`. Its lag counts from now on, even if it never answers.
    pub fn begin(service: &'static str) -> Self {
        read_up_to().insert(service, Instant::now());
        Self(service)
    }

    /// Counts applied events. What was read goes up to the last of them; without any, the end was reached just now.
    pub fn observe(&self, applied: &[Received]) {
        metrics::counter!("events_consumed_total", "of" => self.0).increment(applied.len() as u64);
        let age = match applied.last() {
            None => Some(Duration::ZERO),
            // The other service's clock may be ahead.
            Some(event) => event.time.map(|time| (Utc::now() - time).to_std().unwrap_or_default()),
        };
        let up_to = age.and_then(|age| Instant::now().checked_sub(age));
        up_to.and_then(|up_to| read_up_to().insert(self.0, up_to));
    }

    /// Has the inbox refilled, because events are gone that it has not read: `reason` says how that is known. Until it is
    /// refilled, the log, a metric and the readiness of the service say so.
    ///
    /// A transport first notes where its events end, then calls this, and then stores that end as the place to go on from.
    /// So an event that is not in the inbox afterwards still comes, and a crash in between finds the loss again.
    ///
    /// # Errors
    /// Why it could not be refilled now. The events stay lost until a later call succeeds.
    pub async fn refill<I: Inbox>(&self, inbox: &I, reason: &str) -> Result<(), I::Error> {
        loss::begin(self.0, reason);
        inbox.refill().await?;
        loss::end(self.0);
        tracing::info!(of = self.0, "what the lost events changed has been read anew");
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        read_up_to().remove(self.0);
        // Another process follows now. It knows the lag, and finds a loss again.
        loss::end(self.0);
        gauge(self.0).set(f64::NAN);
    }
}

/// Sets the gauges of the lags. They grow while nothing proves that there is nothing new.
pub(crate) fn record_gauges() {
    for (of, up_to) in &*read_up_to() {
        gauge(of).set(up_to.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(of: &str) -> Duration {
        read_up_to()[of].elapsed()
    }

    fn event(seconds_ago: i64) -> Received {
        let time = Some(Utc::now() - chrono::TimeDelta::seconds(seconds_ago));
        Received {
            id: "1/1".to_owned(),
            r#type: "thing.happened.v1".to_owned(),
            time,
            traceparent: None,
            data: String::new(),
        }
    }

    #[tokio::test]
    async fn the_lag_is_the_time_since_the_last_proof() {
        let follower = Follower::begin("things");
        follower.observe(&[event(100), event(60)]);
        assert!(lag("things") >= Duration::from_secs(60) && lag("things") < Duration::from_secs(90));
        follower.observe(&[]);
        let (earlier, pause) = (lag("things"), Duration::from_millis(5));
        assert!(earlier < Duration::from_secs(5));
        tokio::time::sleep(pause).await;
        assert!(lag("things") >= earlier + pause, "it grows while nothing is heard");
        follower.observe(&[event(-86_400)]);
        assert!(lag("things") < Duration::from_secs(5), "a clock that is ahead is no lag");
        drop(follower);
        assert!(!read_up_to().contains_key("things"));
    }
}
