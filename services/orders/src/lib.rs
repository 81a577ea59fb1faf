//! The orders service as a library: its router can be tested without a port.

#![warn(missing_docs)]

mod config;
pub mod customers;
mod db;
pub mod domain;
mod error;
mod events;
pub mod outbox;
pub mod rebuild;
mod routes;
mod step;

use std::time::Duration;

use axum::Router;
use chassis::events::Wakeups;
use customers::Customers;
use shared_db::{Database, run};

pub use config::{Command, Config};

/// What handlers need.
#[derive(Clone)]
pub struct App {
    /// The service's database.
    pub database: Database,
    /// Wakes the readers of the feed.
    pub wakeups: Wakeups,
    /// The port to users.
    pub customers: Customers,
}

impl App {
    /// The service on `database`.
    pub fn new(database: Database, customers: Customers) -> Self {
        Self { database, wakeups: Wakeups::default(), customers }
    }
}

/// The whole HTTP interface.
pub fn router(app: App) -> Router {
    routes::router(app)
}

/// How often [`watch_event_log`] looks.
const WATCH: Duration = Duration::from_secs(10);

/// Keeps the gauges of how long committed events have been held back from the feed by an open transaction, and of how many
/// of the other service's events are parked, which a command may change as well as this process.
pub async fn watch_event_log(app: App) {
    let (withheld, parked) = (metrics::gauge!("event_log_withheld_seconds"), metrics::gauge!("parked_events"));
    loop {
        // Silent on errors: requests and readiness report them.
        if let Ok(seconds) = run!(app.database, connection => db::events::withheld_seconds(connection)).await {
            withheld.set(seconds);
        }
        if let Ok(count) = run!(app.database, connection => db::customers::count_parked_events(connection)).await {
            parked.set(count as f64);
        }
        tokio::time::sleep(WATCH).await;
    }
}
