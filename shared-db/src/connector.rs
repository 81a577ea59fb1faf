//! Opens connections for the pool, and checks the pooled ones.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::answer::Timer;
use crate::login::Logins;
use crate::settings::Settings;
use crate::url::{DatabaseUrl, InvalidUrl};

/// A connection that was idle for longer is pinged before a request gets it. A ping each time would cost every request a
/// round trip.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// How often the server checks, during a statement, whether the connection still exists.
const CLIENT_CHECK: Duration = Duration::from_secs(2);

/// How long connections to a server that takes no writes are used.
const READ_ONLY_FOR: Duration = Duration::from_secs(1);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, and the generation in which it was opened.
pub(crate) struct Pooled {
    pub(crate) connection: PgConnection,
    pub(crate) generation: u64,
    /// When the server was started that it leads to, once it was asked.
    pub(crate) server: Option<i64>,
    /// The numbers of the statements that were prepared before a request needed them.
    pub(crate) prepared: HashSet<usize>,
    /// It ends what the server does not answer.
    pub(crate) timer: Timer,
}

/// Opens connections. When one is found broken, all of its generation and older are discarded: so one request fails, and not
/// one for each connection.
pub(crate) struct Connector {
    logins: Logins,
    settings: Settings,
    generation: AtomicU64,
    /// When the newest connections were discarded because their server takes no writes.
    left_read_only: Mutex<Option<Instant>>,
}

impl Connector {
    pub(crate) fn new(url: DatabaseUrl, settings: &Settings) -> Result<Self, InvalidUrl> {
        let (settings, generation) = (settings.clone(), AtomicU64::new(0));
        Ok(Self { logins: Logins::new(url)?, settings, generation, left_read_only: Mutex::default() })
    }

    /// Opens a connection outside the pool. The server closes it after it was silent for `silence`.
    pub(crate) async fn open(&self, silence: Duration) -> Result<PgConnection, sqlx::Error> {
        let silence = [("idle_session_timeout", millis(silence))];
        self.logins.connect(|options| self.adjust(options).options(silence.clone())).await
    }

    /// The options of every session.
    fn adjust(&self, options: PgConnectOptions) -> PgConnectOptions {
        let Settings { application_name, statement_timeout, lock_timeout, .. } = &self.settings;
        options
            .application_name(application_name)
            .options([
                ("statement_timeout", millis(*statement_timeout)),
                ("lock_timeout", millis(*lock_timeout)),
                ("idle_in_transaction_session_timeout", millis(*statement_timeout * 2)),
                // The driver cannot cancel a statement. The server notices that the connection was closed, and ends it.
                ("client_connection_check_interval", millis(CLIENT_CHECK)),
            ])
            .disable_statement_logging()
    }

    /// Discards the connections of `generation` and older, one of which is broken.
    pub(crate) fn discard(&self, generation: u64) {
        self.generation.fetch_max(generation + 1, Ordering::Relaxed);
    }

    /// Discards the connections of `generation` and older, whose server takes no writes: after a failover it may be a
    /// standby, to which the address leads no more. An operator may also want it so, and then each write finds that: so at
    /// most once a second.
    pub(crate) fn leave_read_only(&self, generation: u64) {
        let mut left = self.left_read_only.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_some_and(|left| left.elapsed() < READ_ONLY_FOR) {
            return;
        }
        *left = Some(Instant::now());
        tracing::warn!("the database takes no writes: its connections are opened again, for its address may have changed");
        self.discard(generation);
    }

    /// Discards all connections: the address led to a standby before, and leads to the primary now.
    pub(crate) fn leave_standby(&self) {
        tracing::warn!("the database was a standby and takes writes now: all connections are opened again");
        self.discard(self.generation.load(Ordering::Relaxed));
    }

    /// The time after which the server ends a statement.
    pub(crate) fn statement_timeout(&self) -> Duration {
        self.settings.statement_timeout
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
        let connection = Box::pin(self.logins.connect(|options| self.adjust(options))).await?;
        Ok(Pooled { connection, generation, server: None, prepared: HashSet::new(), timer: Timer::default() })
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
