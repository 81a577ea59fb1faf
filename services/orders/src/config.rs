//! The service's variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::config::{ServiceOptions, socket_address};
use chassis::events::TopicCommand;
use chassis::events::archive::Command as EventsCommand;
use chassis::events::consumer::{Command as ReplicaCommand, Feed};
use chassis::healthcheck;
use chassis::remote::{BaseUrl, Limits};
use clap::{Parser, Subcommand};
use shared_db::{Database, DatabaseUrl, Settings};

use crate::App;
use crate::customers::{Customers, ShadowVia, Users, Via};
use crate::db::events::end_on_standby;
use crate::rebuild;

/// The orders service: what people buy, from placing an order to its delivery.
///
/// Every option can be given as the variable named beside it, in the environment or in a file `.env`.
#[derive(Debug, Parser)]
#[command(name = "orders", version)]
pub struct Config {
    /// the service's database, logged in as its own role (`postgres://orders_svc:…@host/database`)
    #[arg(long, env = "ORDERS_DATABASE_URL", hide_env_values = true, required_unless_present = "orders_database_url_file")]
    pub orders_database_url: Option<String>,
    /// a file that contains this URL; it is read again when the login is refused
    #[arg(long, env = "ORDERS_DATABASE_URL_FILE")]
    pub orders_database_url_file: Option<PathBuf>,
    /// the database that the service's tables will move to; while it is set, the service follows them there and back
    #[arg(long, env = "ORDERS_DATABASE_NEXT_URL", hide_env_values = true)]
    pub orders_database_next_url: Option<String>,
    /// a file that contains this URL; it is read again when the login is refused
    #[arg(long, env = "ORDERS_DATABASE_NEXT_URL_FILE")]
    pub orders_database_next_url_file: Option<PathBuf>,
    /// standbys of the service's database, for reads (`postgres://orders_svc:…@first,second:5433/database`); one may be the
    /// primary
    #[arg(long, env = "ORDERS_DATABASE_READ_URL", hide_env_values = true)]
    pub orders_database_read_url: Option<String>,
    /// a file that contains this URL; it is read again when the login is refused
    #[arg(long, env = "ORDERS_DATABASE_READ_URL_FILE")]
    pub orders_database_read_url_file: Option<PathBuf>,
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
    /// How the service uses its database.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new("orders", self.options.database_max_connections);
        settings.queue_timeout = self.options.database_queue_timeout;
        settings
    }

    /// The service.
    ///
    /// # Errors
    /// As [`Config::database`] and [`Config::customers`].
    pub fn app(&self) -> Result<App, String> {
        Ok(App::new(self.database(&self.settings())?, self.customers()?))
    }

    /// The service's database, the one that its tables may move to, and the standbys.
    ///
    /// # Errors
    /// The variable that is not a Postgres URL, or is set twice.
    pub fn database(&self, settings: &Settings) -> Result<Database, String> {
        let (text, file) = (&self.orders_database_url, &self.orders_database_url_file);
        let url = DatabaseUrl::choose("ORDERS_DATABASE_URL", text.as_deref(), file.as_deref())?;
        let url = url.ok_or("ORDERS_DATABASE_URL is not set")?;
        let database = Database::new(&url, settings).map_err(|error| format!("{url} {error}"))?;
        let (text, file) = (&self.orders_database_next_url, &self.orders_database_next_url_file);
        let database = match DatabaseUrl::choose("ORDERS_DATABASE_NEXT_URL", text.as_deref(), file.as_deref())? {
            Some(next) => database.moving("orders", &next, settings).map_err(|error| format!("{next} {error}"))?,
            None => database,
        };
        let (text, file) = (&self.orders_database_read_url, &self.orders_database_read_url_file);
        match DatabaseUrl::choose("ORDERS_DATABASE_READ_URL", text.as_deref(), file.as_deref())? {
            Some(read) => database
                .reading(&read, self.options.read_max_lag, end_on_standby, settings)
                .map_err(|error| format!("{read} {error}")),
            None => Ok(database),
        }
    }

    fn users_url(&self) -> Result<BaseUrl, String> {
        self.users_url.clone().unwrap_or_else(|| self.users_addr.into()).encrypted_by(&self.options.tls)
    }

    fn users_grpc_url(&self) -> Result<BaseUrl, String> {
        self.users_grpc_url.clone().unwrap_or_else(|| self.users_grpc_addr.into()).encrypted_by(&self.options.tls)
    }

    /// The feed of users.
    ///
    /// # Errors
    /// If the files of TLS cannot be used, or the variables of the service's token contradict each other.
    pub fn users_feed(&self) -> Result<Feed, String> {
        Ok(Feed::new("users", &self.users_url()?).showing(self.options.auth.service_token()?))
    }

    /// The port to users, as configured.
    ///
    /// # Errors
    /// If two dials contradict each other, or the files of TLS cannot be used.
    pub fn customers(&self) -> Result<Customers, String> {
        let token = self.options.auth.service_token()?;
        let (http_url, grpc_url) = (self.users_url()?, self.users_grpc_url()?);
        let http = || Users::http(&http_url, Limits::default()).showing(token.clone());
        let grpc = || Users::grpc(&grpc_url, Limits::default()).showing(token.clone());
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
    /// Archive old events of the service's own log
    #[command(subcommand)]
    Events(EventsCommand),
    /// Ask the running service whether it can do its work. Exit code: 0 if it can, 1 if it cannot or does not answer
    Health(healthcheck::Options),
    /// Create the service's Kafka topic, or have it forget what was published
    #[command(subcommand)]
    Topic(TopicCommand),
}
