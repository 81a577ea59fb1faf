//! The service's variables.

use std::net::SocketAddr;

use chassis::config::{connections, socket_address};
use chassis::remote::{BaseUrl, Http, Limits};
use chassis::telemetry::LogConfig;
use clap::Parser;

use crate::open_orders::{OpenOrders, Via};

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
    /// where gRPC is served, for other services
    #[arg(long, env = "USERS_GRPC_ADDR", default_value = "127.0.0.1:50051", value_parser = socket_address)]
    pub users_grpc_addr: SocketAddr,
    /// how the service learns of a user's open orders
    #[arg(long, env = "OPEN_ORDERS_VIA", default_value = "local")]
    pub open_orders_via: Via,
    /// where orders is reached [default: `ORDERS_ADDR`]
    #[arg(long, env = "ORDERS_URL")]
    pub orders_url: Option<BaseUrl>,
    /// where orders serves HTTP
    #[arg(long, env = "ORDERS_ADDR", default_value = "127.0.0.1:8082", value_parser = socket_address)]
    pub orders_addr: SocketAddr,
    /// connections to the database, at most
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value = "10", value_parser = connections)]
    pub database_max_connections: usize,
    /// Logging.
    #[command(flatten)]
    pub log: LogConfig,
}

impl Config {
    /// The port to orders, as configured.
    pub fn open_orders(&self) -> OpenOrders {
        let orders_url = self.orders_url.clone().unwrap_or_else(|| self.orders_addr.into());
        match self.open_orders_via {
            Via::Local => OpenOrders::Local,
            Via::Http => OpenOrders::Http(Http::new("orders", &orders_url, Limits::default())),
        }
    }
}
