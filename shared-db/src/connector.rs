//! Opens connections for the pool, and checks the pooled ones.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::settings::Settings;

/// A connection that was idle for longer is pinged before a request gets it. A ping each time would cost every request a
/// round trip.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A database URL that cannot be used. Its text never repeats the URL, which holds a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// The scheme is not Postgres'.
    #[error("must start with postgres:// or postgresql://")]
    Scheme,
    /// The text is not a URL, or has parameters that Postgres does not know.
    #[error("is not a valid Postgres URL (postgres://role:password@host:port/database)")]
    Malformed,
}

/// A connection, and the generation in which it was opened.
pub(crate) struct Pooled {
    pub(crate) connection: PgConnection,
    pub(crate) generation: u64,
}

/// Opens connections. When one is found broken, all of its generation and older are discarded: so one request fails, and not
/// one for each connection.
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

    /// Opens a connection outside the pool. The server closes it after it was silent for `silence`.
    pub(crate) async fn open(&self, silence: Duration) -> Result<PgConnection, sqlx::Error> {
        let options = self.options.clone().options([("idle_session_timeout", millis(silence))]);
        PgConnection::connect_with(&options).await
    }

    /// Discards the connections of `generation` and older, one of which is broken.
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
        // Boxed, as below: what happens rarely should not make the future of every request larger.
        let connection = Box::pin(PgConnection::connect_with(&self.options)).await?;
        Ok(Pooled { connection, generation })
    }

    async fn recycle(&self, pooled: &mut Pooled, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if pooled.generation < self.generation.load(Ordering::Relaxed) {
            return Err(RecycleError::message("another connection of the same generation is broken"));
        }
        if metrics.last_used() <= TRUSTED_FOR {
            return Ok(());
        }
        match tokio::time::timeout(PING_TIMEOUT, Box::pin(pooled.connection.ping())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.discard(pooled.generation);
                Err(error.into())
            }
            // The network may lose all packets. Then each ping of an old connection would cost its request this time-out.
            Err(_elapsed) => {
                self.discard(pooled.generation);
                Err(RecycleError::message("the ping was not answered in time"))
            }
        }
    }
}
