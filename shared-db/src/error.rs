//! Errors of the database, sorted by who must act.

use deadpool::managed::PoolError;

/// A failed use of the database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No connection can be had, or the server cannot do the work now. A retry later may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// All connections were in use, or none could be opened, until the caller's time was up.
    #[error("no database connection was free in time ({0})")]
    NoConnection(&'static str),
    /// A rule of the schema refused the statement.
    #[error("the database refused a row by its constraint {name}")]
    Constraint {
        /// Name of the constraint, the unique index or the rule a trigger stands for.
        name: String,
        /// What the driver reported.
        source: sqlx::Error,
    },
    /// Any other error: a bug.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

impl DatabaseError {
    /// The constraint that refused the statement.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether a retry later may succeed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoConnection(_))
    }

    /// Whether the connection is broken.
    pub(crate) fn is_broken_connection(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) => {
                // 57P01 to 57P05: shut down, crashed, starting, dropped, idle for too long; 25P03: idle in transaction.
                error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P") || code == "25P03")
            }
            Self::Unavailable(_) => true,
            // Client and server may no longer agree on the position in the stream.
            Self::Statement(error) => matches!(error, sqlx::Error::Protocol(_)),
            Self::NoConnection(_) | Self::Constraint { .. } => false,
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(refusal) => {
                let code = refusal.code();
                if code.is_some_and(|code| is_passing(&code)) {
                    Self::Unavailable(error)
                } else if let Some(name) = refusal.constraint() {
                    Self::Constraint { name: name.to_owned(), source: error }
                } else {
                    Self::Statement(error)
                }
            }
            _ => Self::Statement(error),
        }
    }
}

/// Whether the SQLSTATE is about the server's state or the operator's set-up, not about the statement.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_passing(code: &str) -> bool {
    const CLASSES: [&str; 6] = [
        "08", // connection exception
        "28", // invalid authorisation
        "40", // transaction rollback: serialisation failure, deadlock
        "53", // insufficient resources: disk full, too many connections
        "57", // operator intervention: shutdown, statement_timeout
        "58", // system error outside Postgres
    ];
    const CODES: [&str; 6] = [
        "25006", // read-only: a standby, during a failover
        "25P03", // idle in transaction for too long
        "3D000", // no such database
        "42501", // no right to the object
        "42P01", // no such table: not migrated
        "55P03", // lock not available in time: another transaction holds the row, and a retry helps
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

impl From<PoolError<sqlx::Error>> for DatabaseError {
    fn from(error: PoolError<sqlx::Error>) -> Self {
        match error {
            // The request is not the cause of an error at opening a connection.
            PoolError::Backend(error) => Self::Unavailable(error),
            PoolError::Timeout(_) => Self::NoConnection("waited too long"),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::NoConnection("the pool is closed")
            }
        }
    }
}
