//! Opens connections for the pool, and tells which of the pooled ones are still to be trusted.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::database::Settings;

/// A connection unused for longer is asked for a sign of life before it is handed out. Asking every time would cost each
/// request a round trip.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// How long it may take to give one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A database URL that cannot be used. Its text names what is wrong, never the URL: that holds a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// Another scheme than Postgres'.
    #[error("must start with postgres:// or postgresql://")]
    Scheme,
    /// Not a URL, or with parameters Postgres has none of.
    #[error("is not a valid Postgres URL (postgres://role:password@host:port/database)")]
    Malformed,
}

/// A connection and the life of the server it belongs to.
pub(crate) struct Pooled {
    pub(crate) connection: PgConnection,
    pub(crate) generation: u64,
}

/// Opens connections; after one was found broken, every older one is discarded rather than failing a request each.
pub(crate) struct Connector {
    options: PgConnectOptions,
    generation: AtomicU64,
}

impl Connector {
    pub(crate) fn new(url: &str, settings: &Settings) -> Result<Self, InvalidUrl> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(InvalidUrl::Scheme);
        }
        // sqlx's own message repeats parts of the URL.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| InvalidUrl::Malformed)?
            .application_name(&settings.application_name)
            .options([
                ("statement_timeout", millis(settings.statement_timeout)),
                ("lock_timeout", millis(settings.lock_timeout)),
                ("idle_in_transaction_session_timeout", millis(settings.statement_timeout * 2)),
            ])
            .disable_statement_logging();
        Ok(Self { options, generation: AtomicU64::new(0) })
    }

    /// Opens a connection that is not for the pool.
    pub(crate) async fn open(&self, silence: Duration) -> Result<PgConnection, sqlx::Error> {
        let options = self.options.clone().options([("idle_session_timeout", millis(silence))]);
        PgConnection::connect_with(&options).await
    }

    /// Notes that a connection of `generation` broke: it and all older ones are not handed out again.
    pub(crate) fn discard(&self, generation: u64) {
        self.generation.fetch_max(generation + 1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

impl Manager for Connector {
    type Type = Pooled;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Pooled, sqlx::Error> {
        let generation = self.generation.load(Ordering::Relaxed);
        // Boxed, as below: what happens rarely should not make every request's future larger.
        let connection = Box::pin(PgConnection::connect_with(&self.options)).await?;
        Ok(Pooled { connection, generation })
    }

    async fn recycle(&self, pooled: &mut Pooled, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if pooled.generation < self.generation.load(Ordering::Relaxed) {
            return Err(RecycleError::message("the server has gone since"));
        }
        if metrics.last_used() <= TRUSTED_FOR {
            return Ok(());
        }
        match tokio::time::timeout(SIGN_OF_LIFE, Box::pin(pooled.connection.ping())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.discard(pooled.generation);
                Err(error.into())
            }
            // A network that swallows packets answers nothing, ever: the other old connections need not be asked.
            Err(_elapsed) => {
                self.discard(pooled.generation);
                Err(RecycleError::message("no sign of life in time"))
            }
        }
    }
}
