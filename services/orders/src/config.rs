//! The service's variables.

use std::net::SocketAddr;

use chassis::config::{ServiceOptions, socket_address};
use chassis::events::consumer::{Command as ReplicaCommand, Feed};
use chassis::remote::{BaseUrl, Limits};
use clap::{Parser, Subcommand};
use shared_db::{Database, Settings};

use crate::customers::{Customers, ShadowVia, Users, Via};
use crate::rebuild;

/// The orders service: what people buy, from placing an order to its delivery.
///
/// Every option can be given as the variable named beside it, in the environment or in a file `.env`.
#[derive(Debug, Parser)]
#[command(name = "orders", version)]
pub struct Config {
    /// the service's database, logged in as its own role (`postgres://orders_svc:…@host/database`)
    #[arg(long, env = "ORDERS_DATABASE_URL", hide_env_values = true)]
    pub orders_database_url: String,
    /// the database that the service's tables will move to; while it is set, the service follows them there and back
    #[arg(long, env = "ORDERS_DATABASE_NEXT_URL", hide_env_values = true)]
    pub orders_database_next_url: Option<String>,
    /// where HTTP is served
    #[arg(long, env = "ORDERS_ADDR", default_value = "127.0.0.1:8082", value_parser = socket_address)]
    pub orders_addr: SocketAddr,
    /// how the service reads an order's customer
    #[arg(long, env = "CUSTOMERS_VIA", default_value = "local")]
    pub customers_via: Via,
    /// another way to read it, compared beside the requests
    #[arg(long, env = "CUSTOMERS_SHADOW")]
    pub customers_shadow: Option<ShadowVia>,
    /// the URL of users [default: `USERS_ADDR`]
    #[arg(long, env = "USERS_URL")]
    pub users_url: Option<BaseUrl>,
    /// where users serves HTTP
    #[arg(long, env = "USERS_ADDR", default_value = "127.0.0.1:8081", value_parser = socket_address)]
    pub users_addr: SocketAddr,
    /// the URL of users for gRPC [default: `USERS_GRPC_ADDR`]
    #[arg(long, env = "USERS_GRPC_URL")]
    pub users_grpc_url: Option<BaseUrl>,
    /// where users serves gRPC
    #[arg(long, env = "USERS_GRPC_ADDR", default_value = "127.0.0.1:50051", value_parser = socket_address)]
    pub users_grpc_addr: SocketAddr,
    /// What every service has.
    #[command(flatten)]
    pub options: ServiceOptions,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Config {
    /// The service's database, and the one that its tables may move to.
    ///
    /// # Errors
    /// The variable that is not a Postgres URL.
    pub fn database(&self, settings: &Settings) -> Result<Database, String> {
        let database = Database::new(&self.orders_database_url, settings);
        let database = database.map_err(|error| format!("ORDERS_DATABASE_URL {error}"))?;
        let Some(next) = &self.orders_database_next_url else { return Ok(database) };
        database.moving("orders", next, settings).map_err(|error| format!("ORDERS_DATABASE_NEXT_URL {error}"))
    }

    fn users_url(&self) -> BaseUrl {
        self.users_url.clone().unwrap_or_else(|| self.users_addr.into())
    }

    /// The feed of users.
    pub fn users_feed(&self) -> Feed {
        Feed::new("users", &self.users_url())
    }

    /// The port to users, as configured.
    ///
    /// # Errors
    /// If two dials contradict each other.
    pub fn customers(&self) -> Result<Customers, String> {
        let http = || Users::http(&self.users_url(), Limits::default());
        let grpc =
            || Users::grpc(&self.users_grpc_url.clone().unwrap_or_else(|| self.users_grpc_addr.into()), Limits::default());
        let customers = match self.customers_via {
            Via::Local => Customers::local(http()),
            Via::Http => Customers::remote(http()),
            Via::Grpc => Customers::remote(grpc()),
        };
        match (self.customers_via, self.customers_shadow) {
            (_, None) => Ok(customers),
            (Via::Local, Some(ShadowVia::Http)) => Ok(customers.shadowed_by(http())),
            (Via::Local, Some(ShadowVia::Grpc)) => Ok(customers.shadowed_by(grpc())),
            (Via::Http | Via::Grpc, Some(_)) => {
                Err("CUSTOMERS_SHADOW is compared with what CUSTOMERS_VIA=local gives: unset it after you turn the dial"
                    .to_owned())
            }
        }
    }
}

/// What the program can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fold every order from its events and repair the rows that differ. Exit code: 0 if no differences remain, 1 if some
    /// do, 2 after an error
    Rebuild(rebuild::Options),
    /// Rebuild the replica of the customers, or try its parked events again
    #[command(subcommand)]
    Replica(ReplicaCommand),
}
