//! How a service uses its database.

use std::time::Duration;

/// How much longer than one statement all of a [`run!`](crate::run!) may take, the wait for a connection included: Postgres
/// is given the time to say that it has cancelled the statement.
const ANSWER: Duration = Duration::from_millis(500);

/// The settings of a service's connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name that `pg_stat_activity` shows.
    pub application_name: String,
    /// The most connections open at once.
    pub max_connections: usize,
    /// The longest wait for a connection. It covers the wait for a free one, its check, and the opening of a new one.
    pub acquire_timeout: Duration,
    /// The longest wait for a free connection, and for a place among the writes. A longer queue only delays refusals. While
    /// the tables are being switched, `acquire_timeout` is the limit.
    pub queue_timeout: Duration,
    /// The most requests that wait for a free connection.
    pub queue_length: usize,
    /// The longest time that one statement may run.
    pub statement_timeout: Duration,
    /// The longest time that one statement may wait for a lock. While the tables are being switched, it tries again.
    pub lock_timeout: Duration,
    /// The longest time for one read on a standby, from the wait for a connection to the answer. Then the primary is read.
    pub standby_timeout: Duration,
    /// The longest time for a check of the database's health.
    pub check_timeout: Duration,
    /// Whether clients wait for the statements. Then a server that does not answer is given up soon.
    pub has_clients: bool,
}

impl Settings {
    /// Settings for a service that answers requests.
    pub fn new(application_name: &str, max_connections: usize) -> Self {
        Self {
            application_name: application_name.to_owned(),
            max_connections,
            acquire_timeout: Duration::from_secs(3),
            queue_timeout: Duration::from_millis(200),
            queue_length: 100 * max_connections,
            statement_timeout: Duration::from_secs(3),
            lock_timeout: Duration::from_millis(500),
            standby_timeout: Duration::from_secs(1),
            check_timeout: Duration::from_secs(1),
            has_clients: true,
        }
    }

    /// The settings with this limit for every wait: for a machine that has much else to do.
    #[must_use]
    pub fn with_patience(mut self, limit: Duration) -> Self {
        for wait in [
            &mut self.acquire_timeout,
            &mut self.queue_timeout,
            &mut self.lock_timeout,
            &mut self.statement_timeout,
            &mut self.standby_timeout,
            &mut self.check_timeout,
        ] {
            *wait = limit;
        }
        self
    }

    /// The same for a command, which no client waits for.
    #[must_use]
    pub fn for_a_command(mut self) -> Self {
        self.queue_timeout = self.acquire_timeout;
        self.lock_timeout = Duration::from_secs(2);
        self.statement_timeout = Duration::from_secs(5);
        self.has_clients = false;
        self
    }

    /// The longest time for one [`run!`](crate::run!), from the wait for a connection to the answer.
    pub(crate) fn answer_timeout(&self) -> Option<Duration> {
        self.has_clients.then(|| self.statement_timeout + ANSWER)
    }
}
