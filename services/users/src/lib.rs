//! The users service as a library, so that tests can call its router without a port.

mod config;
mod db;
pub mod domain;
mod error;
pub mod events;
pub mod grpc;
pub mod open_orders;
mod routes;

use chassis::events::Wakeups;
use open_orders::OpenOrders;
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
    /// The port to orders.
    pub open_orders: OpenOrders,
}

impl App {
    /// The service on `database`.
    pub fn new(database: Database, open_orders: OpenOrders) -> Self {
        Self { database, wakeups: Wakeups::default(), open_orders }
    }
}
