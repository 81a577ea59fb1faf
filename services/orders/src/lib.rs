//! The orders service as a library: its router can be tested without a port.

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
use shared_db::{Database, Settle};

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

/// Keeps the gauge of how long committed events have been held back from the feed by an open transaction.
pub async fn watch_event_log(app: App) {
    let gauge = metrics::gauge!("event_log_withheld_seconds");
    loop {
        // Silent on errors: requests and readiness report them.
        if let Ok(mut connection) = app.database.connection().await
            && let Ok(seconds) = db::events::withheld_seconds(&mut connection).await.settle(connection)
        {
            gauge.set(seconds);
        }
        tokio::time::sleep(WATCH).await;
    }
}
