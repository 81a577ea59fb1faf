//! The service's variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::config::{ServiceOptions, socket_address};
use chassis::events::TopicCommand;
use chassis::events::archive::Command as EventsCommand;
use chassis::events::consumer::{Command as ReplicaCommand, Feed};
use chassis::healthcheck;
use chassis::remote::{BaseUrl, Http, Limits};
use clap::{Parser, Subcommand};
use shared_db::{Database, DatabaseUrl, Settings};

use crate::App;
use crate::db::events::end_on_standby;
use crate::open_orders::{OpenOrders, ShadowVia, Via};

/// The users service: people who place orders.
///
/// Every option can be given as the variable named beside it, in the environment or in a file `.env`.
#[derive(Debug, Parser)]
#[command(name = "users", version)]
pub struct Config {
    /// the service's database, logged in as its own role (`postgres://users_svc:…@host/database`)
    #[arg(long, env = "USERS_DATABASE_URL", hide_env_values = true, required_unless_present = "users_database_url_file")]
    pub users_database_url: Option<String>,
    /// a file that contains this URL; it is read again when the login is refused
    #[arg(long, env = "USERS_DATABASE_URL_FILE")]
    pub users_database_url_file: Option<PathBuf>,
    /// the database that the service's tables will move to; while it is set, the service follows them there and back
    #[arg(long, env = "USERS_DATABASE_NEXT_URL", hide_env_values = true)]
    pub users_database_next_url: Option<String>,
    /// a file that contains this URL; it is read again when the login is refused
    #[arg(long, env = "USERS_DATABASE_NEXT_URL_FILE")]
    pub users_database_next_url_file: Option<PathBuf>,
    /// standbys of the service's database, for reads (`postgres://users_svc:…@first,second:5433/database`); one may be the
    /// primary
    #[arg(long, env = "USERS_DATABASE_READ_URL", hide_env_values = true)]
    pub users_database_read_url: Option<String>,
    /// a file that contains this URL; it is read again when the login is refused
    #[arg(long, env = "USERS_DATABASE_READ_URL_FILE")]
    pub users_database_read_url_file: Option<PathBuf>,
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
    /// Archive old events of the service's own log
    #[command(subcommand)]
    Events(EventsCommand),
    /// Ask the running service whether it can do its work. Exit code: 0 if it can, 1 if it cannot or does not answer
    Health(healthcheck::Options),
    /// Create the service's Kafka topic, or have it forget what was published
    #[command(subcommand)]
    Topic(TopicCommand),
}

impl Config {
    /// How the service uses its database.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new("users", self.options.database_max_connections);
        settings.queue_timeout = self.options.database_queue_timeout;
        settings
    }

    /// The service.
    ///
    /// # Errors
    /// As [`Config::database`] and [`Config::open_orders`].
    pub fn app(&self) -> Result<App, String> {
        Ok(App::new(self.database(&self.settings())?, self.open_orders()?))
    }

    /// The service's database, the one that its tables may move to, and the standbys.
    ///
    /// # Errors
    /// The variable that is not a Postgres URL, or is set twice.
    pub fn database(&self, settings: &Settings) -> Result<Database, String> {
        let (text, file) = (&self.users_database_url, &self.users_database_url_file);
        let url = DatabaseUrl::choose("USERS_DATABASE_URL", text.as_deref(), file.as_deref())?;
        let url = url.ok_or("USERS_DATABASE_URL is not set")?;
        let database = Database::new(&url, settings).map_err(|error| format!("{url} {error}"))?;
        let (text, file) = (&self.users_database_next_url, &self.users_database_next_url_file);
        let database = match DatabaseUrl::choose("USERS_DATABASE_NEXT_URL", text.as_deref(), file.as_deref())? {
            Some(next) => database.moving("users", &next, settings).map_err(|error| format!("{next} {error}"))?,
            None => database,
        };
        let (text, file) = (&self.users_database_read_url, &self.users_database_read_url_file);
        match DatabaseUrl::choose("USERS_DATABASE_READ_URL", text.as_deref(), file.as_deref())? {
            Some(read) => database
                .reading(&read, self.options.read_max_lag, end_on_standby, settings)
                .map_err(|error| format!("{read} {error}")),
            None => Ok(database),
        }
    }

    fn orders_url(&self) -> Result<BaseUrl, String> {
        self.orders_url.clone().unwrap_or_else(|| self.orders_addr.into()).encrypted_by(&self.options.tls)
    }

    /// The feed of orders.
    ///
    /// # Errors
    /// If the files of TLS cannot be used, or the variables of the service's token contradict each other.
    pub fn orders_feed(&self) -> Result<Feed, String> {
        Ok(Feed::new("orders", &self.orders_url()?).showing(self.options.auth.service_token()?))
    }

    /// The port to orders, as configured.
    ///
    /// # Errors
    /// If two dials contradict each other, or the files of TLS cannot be used.
    pub fn open_orders(&self) -> Result<OpenOrders, String> {
        let (url, token) = (self.orders_url()?, self.options.auth.service_token()?);
        let http = || Http::new("orders", &url, Limits::default()).showing(token.clone());
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
