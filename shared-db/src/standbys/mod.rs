//! Reads from standbys. A read runs on a standby that is known to be recent enough, and on the primary otherwise, or if the
//! standby fails: a standby costs no request.

mod server;
mod standby;
mod watch;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::pool::Connection;
use crate::settings::Settings;
use crate::switches::Switch;
use crate::url::{DatabaseUrl, InvalidUrl};
pub(crate) use standby::Standby;
pub use watch::watch_standbys;

/// A transaction that wrote to a service's log, and all before it.
///
/// Its number counts within one life of the log. A move of the tables and a restore begin a new life. A failover does not:
/// the new primary goes on counting, and a write that the failover lost is on no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transaction {
    /// The life of the log.
    pub epoch: i64,
    /// The transaction's number.
    pub number: i64,
}

impl Transaction {
    /// One that no standby has: a read after it comes from the primary.
    pub const NEWEST: Self = Self { epoch: i64::MAX, number: i64::MAX };
}

impl From<(i64, i64)> for Transaction {
    fn from((epoch, number): (i64, i64)) -> Self {
        Self { epoch, number }
    }
}

/// Asks a server for the newest transaction of the service's log before which none is under way.
pub type End = for<'a> fn(&'a mut PgConnection) -> Ending<'a>;
/// The answer to [`End`].
pub type Ending<'a> = Pin<Box<dyn Future<Output = Result<Transaction, sqlx::Error>> + Send + 'a>>;

/// Why a read comes from the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// No standby answers, or none has been asked yet.
    Away,
    /// The host is no copy of the database where the tables are: they have moved, or it was promoted.
    Elsewhere,
    /// It is older than reads may be.
    Late,
    /// It does not have the change yet that the client has made.
    Behind,
    /// The client names a change of another life of the log, or none at all.
    Unknown,
    /// All connections to it are in use.
    Busy,
    /// It cancelled the statement, because the rows were to be removed or a table was locked.
    Cancelled,
    /// It refused the statement, or did not answer in time.
    Failed,
}

impl Fallback {
    const ALL: [Self; 8] =
        [Self::Away, Self::Elsewhere, Self::Late, Self::Behind, Self::Unknown, Self::Busy, Self::Cancelled, Self::Failed];

    /// The reason in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Elsewhere => "elsewhere",
            Self::Late => "late",
            Self::Behind => "behind",
            Self::Unknown => "unknown",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The reason to read elsewhere after this error of a standby.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some("40001" | "40P01" | "57014") => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// The hosts that may answer reads.
pub(crate) struct Standbys {
    hosts: Vec<Standby>,
    /// The host whose turn it is.
    turn: AtomicUsize,
    /// How old a read may be.
    max_lag: Duration,
    /// The longest time for one read there, all of its parts included.
    patience: Duration,
    /// The longest time for one check.
    check_timeout: Duration,
    end: End,
}

impl Standbys {
    pub(crate) fn new(url: &DatabaseUrl, max_lag: Duration, end: End, settings: &Settings) -> Result<Self, InvalidUrl> {
        let hosts = url.hosts()?.iter().map(|host| Standby::new(host, settings)).collect::<Result<_, _>>()?;
        let Settings { standby_timeout: patience, check_timeout, .. } = *settings;
        Ok(Self { hosts, turn: AtomicUsize::new(0), max_lag, patience, check_timeout, end })
    }

    /// When a read ends there that begins now.
    pub(crate) fn limit(&self, begun: Instant) -> Instant {
        begun + self.patience
    }

    /// A connection to a standby that has `after`, and is recent enough under this switch. The standbys take turns.
    pub(crate) async fn connection(
        &self,
        switch: Option<Switch>,
        after: Option<Transaction>,
        limit: Instant,
    ) -> Result<(&Standby, Connection), Fallback> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut reason = Fallback::Away;
        for host in (0..self.hosts.len()).map(|index| &self.hosts[turn.wrapping_add(index) % self.hosts.len()]) {
            match host.proof(switch, self.oldest()) {
                Ok(proof) => {
                    let held = host.connection(proof, after, self.end, limit).await?;
                    return Ok((host, held));
                }
                Err(unreadable) => reason = unreadable,
            }
        }
        Err(reason)
    }

    /// Counts a read, by where it came from.
    pub(crate) fn count(&self, source: Result<(), Fallback>) {
        match source {
            Ok(()) => metrics::counter!("db_reads_total", "source" => "standby").increment(1),
            Err(reason) => {
                metrics::counter!("db_reads_total", "source" => "primary").increment(1);
                metrics::counter!("db_standby_fallbacks_total", "reason" => reason.as_str()).increment(1);
            }
        }
    }

    /// Sets the gauges of all hosts.
    pub(crate) fn record_gauges(&self, switch: Option<Switch>) {
        for host in &self.hosts {
            host.record_gauges(host.proof(switch, self.oldest()).is_ok());
        }
    }

    /// How old a standby may be now.
    fn oldest(&self) -> Option<Instant> {
        Instant::now().checked_sub(self.max_lag)
    }
}

/// Says what the metrics of the standbys mean.
pub(crate) fn describe_metrics() {
    use metrics::Unit;
    let reads = "Reads that a standby may answer, by where they came from.";
    metrics::describe_counter!("db_reads_total", Unit::Count, reads);
    let fallbacks = "Reads that a standby may answer and that came from the primary, by reason.";
    metrics::describe_counter!("db_standby_fallbacks_total", Unit::Count, fallbacks);
    let lag = "Time since a standby was known to have everything that was committed.";
    metrics::describe_gauge!("db_standby_lag_seconds", Unit::Seconds, lag);
    metrics::describe_gauge!("db_standby_readable", Unit::Count, "1 while reads may come from the standby.");
    for source in ["standby", "primary"] {
        metrics::counter!("db_reads_total", "source" => source).increment(0);
    }
    for reason in Fallback::ALL {
        metrics::counter!("db_standby_fallbacks_total", "reason" => reason.as_str()).increment(0);
    }
}
