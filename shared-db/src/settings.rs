//! How a service uses its database.

use std::time::Duration;

/// The settings of a service's connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name that `pg_stat_activity` shows.
    pub application_name: String,
    /// The most connections open at once.
    pub max_connections: usize,
    /// The longest wait for a connection. It covers the wait for a free one, its check, and the opening of a new one.
    pub acquire_timeout: Duration,
    /// The longest time that one statement may run.
    pub statement_timeout: Duration,
    /// The longest time that one statement may wait for a lock.
    pub lock_timeout: Duration,
}

impl Settings {
    /// Settings for a service that answers requests.
    pub fn new(application_name: &str, max_connections: usize) -> Self {
        Self {
            application_name: application_name.to_owned(),
            max_connections,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
        }
    }
}
