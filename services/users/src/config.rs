//! The service's variables.

use std::net::SocketAddr;

use chassis::config::{connections, socket_address};
use chassis::telemetry::LogConfig;
use clap::Parser;

use crate::open_orders;

/// The users service: people who place orders.
///
/// Every option can be given as the variable named beside it, in the environment or in a file `.env`.
#[derive(Debug, Parser)]
#[command(name = "users", version)]
pub struct Config {
    /// the service's database, logged in as its own role (`postgres://users_svc:…@host/database`)
    #[arg(long, env = "USERS_DATABASE_URL", hide_env_values = true)]
    pub users_database_url: String,
    /// where HTTP is served
    #[arg(long, env = "USERS_ADDR", default_value = "127.0.0.1:8081", value_parser = socket_address)]
    pub users_addr: SocketAddr,
    /// how the service learns of a user's open orders
    #[arg(long, env = "OPEN_ORDERS_VIA", default_value = "local")]
    pub open_orders_via: open_orders::Via,
    /// connections to the database, at most
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value = "10", value_parser = connections)]
    pub database_max_connections: usize,
    /// Logging.
    #[command(flatten)]
    pub log: LogConfig,
}
