//! The service's variables.

use std::net::SocketAddr;

use chassis::config::{ServiceOptions, socket_address};
use chassis::events::consumer::{Command as ReplicaCommand, Feed};
use chassis::remote::{BaseUrl, Http, Limits};
use clap::{Parser, Subcommand};
use shared_db::{Database, Settings};

use crate::open_orders::{OpenOrders, ShadowVia, Via};

/// The users service: people who place orders.
///
/// Every option can be given as the variable named beside it, in the environment or in a file `.env`.
#[derive(Debug, Parser)]
#[command(name = "users", version)]
pub struct Config {
    /// the service's database, logged in as its own role (`postgres://users_svc:…@host/database`)
    #[arg(long, env = "USERS_DATABASE_URL", hide_env_values = true)]
    pub users_database_url: String,
    /// the database that the service's tables will move to; while it is set, the service follows them there and back
    #[arg(long, env = "USERS_DATABASE_NEXT_URL", hide_env_values = true)]
    pub users_database_next_url: Option<String>,
    /// where HTTP is served
    #[arg(long, env = "USERS_ADDR", default_value = "127.0.0.1:8081", value_parser = socket_address)]
    pub users_addr: SocketAddr,
    /// where gRPC is served, for other services
    #[arg(long, env = "USERS_GRPC_ADDR", default_value = "127.0.0.1:50051", value_parser = socket_address)]
    pub users_grpc_addr: SocketAddr,
    /// how the service reads a user's open orders
    #[arg(long, env = "OPEN_ORDERS_VIA", default_value = "local")]
    pub open_orders_via: Via,
    /// another way to read them, compared beside the requests
    #[arg(long, env = "OPEN_ORDERS_SHADOW")]
    pub open_orders_shadow: Option<ShadowVia>,
    /// the URL of orders [default: `ORDERS_ADDR`]
    #[arg(long, env = "ORDERS_URL")]
    pub orders_url: Option<BaseUrl>,
    /// where orders serves HTTP
    #[arg(long, env = "ORDERS_ADDR", default_value = "127.0.0.1:8082", value_parser = socket_address)]
    pub orders_addr: SocketAddr,
    /// What every service has.
    #[command(flatten)]
    pub options: ServiceOptions,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Rebuild the replica of the open orders, or try its parked events again
    #[command(subcommand)]
    Replica(ReplicaCommand),
}

impl Config {
    /// The service's database, and the one that its tables may move to.
    ///
    /// # Errors
    /// The variable that is not a Postgres URL.
    pub fn database(&self, settings: &Settings) -> Result<Database, String> {
        let database = Database::new(&self.users_database_url, settings);
        let database = database.map_err(|error| format!("USERS_DATABASE_URL {error}"))?;
        let Some(next) = &self.users_database_next_url else { return Ok(database) };
        database.moving("users", next, settings).map_err(|error| format!("USERS_DATABASE_NEXT_URL {error}"))
    }

    fn orders_url(&self) -> BaseUrl {
        self.orders_url.clone().unwrap_or_else(|| self.orders_addr.into())
    }

    /// The feed of orders.
    pub fn orders_feed(&self) -> Feed {
        Feed::new("orders", &self.orders_url())
    }

    /// The port to orders, as configured.
    ///
    /// # Errors
    /// If two dials contradict each other.
    pub fn open_orders(&self) -> Result<OpenOrders, String> {
        let http = || Http::new("orders", &self.orders_url(), Limits::default());
        match (self.open_orders_via, self.open_orders_shadow) {
            (Via::Local, None) => Ok(OpenOrders::local()),
            (Via::Local, Some(ShadowVia::Http)) => Ok(OpenOrders::local().shadowed_by(http())),
            (Via::Http, None) => Ok(OpenOrders::remote(http())),
            (Via::Http, Some(_)) => {
                Err("OPEN_ORDERS_SHADOW is compared with what OPEN_ORDERS_VIA=local gives: unset it after you turn the dial"
                    .to_owned())
            }
        }
    }
}
