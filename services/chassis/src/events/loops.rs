//! The loops over a service's event tables.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::join_all;

use super::broker::Broker;
use super::outbox::OwnLog;
use super::store::EventStore;

/// How often [`watch`] reads the gauges.
const WATCH: Duration = Duration::from_secs(10);

/// Keeps two gauges for ever: how long committed events have been withheld from the feed, and how many events are parked.
/// A command of another process may change the second.
pub async fn watch(store: impl EventStore) -> Infallible {
    let (withheld, parked) = (metrics::gauge!("event_log_withheld_seconds"), metrics::gauge!("parked_events"));
    loop {
        // Errors are silent here: requests and readiness report them.
        if let Ok(seconds) = store.withheld_seconds().await {
            withheld.set(seconds);
        }
        if let Ok(count) = store.count_parked().await {
            parked.set(count as f64);
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// Publishes the service's log by each of the brokers, for ever. Only one process at a time may do it.
pub async fn publish<S: EventStore>(store: &S, brokers: &[impl Broker]) -> Infallible {
    join_all(brokers.iter().map(|broker| publish_by(store, broker))).await;
    std::future::pending().await
}

async fn publish_by<S: EventStore>(store: &S, broker: &impl Broker) -> Infallible {
    let log = OwnLog { store, cursor: broker.cursor() };
    broker.publish(S::SERVICE, S::SOURCE, &log, store.wakeups()).await
}
