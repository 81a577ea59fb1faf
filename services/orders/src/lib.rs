//! The orders service as a library, so that tests can call its router without a port.

mod config;
pub mod customers;
mod db;
pub mod domain;
mod error;
pub mod events;
pub mod rebuild;
mod routes;
mod step;

use chassis::events::Wakeups;
use customers::Customers;
use shared_db::Database;

pub use config::{Command, Config};
pub use routes::router;

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
