//! Errors of the database, sorted by who must act.

use std::borrow::Cow;
use std::io;

use deadpool::managed::PoolError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::sqlstate::{Blame, LOCK_NOT_AVAILABLE, OUTDATED_OR_UNSUPPORTED, READ_ONLY, blame, is_of_a_rule};

/// Why there was no connection, if nothing but time would have helped.
pub(crate) const TOO_LONG: &str = "waited too long";

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
    #[error("the database refused a row by its rule {}", name.as_deref().unwrap_or(code))]
    Refused {
        /// The SQLSTATE: of class 23, or of class RU for a rule that a trigger stands for.
        code: String,
        /// Name of the constraint, the unique index or the rule. An engine of several nodes hands on none.
        name: Option<String>,
        /// What the driver reported.
        source: sqlx::Error,
    },
    /// Any other error: a bug.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

impl DatabaseError {
    /// There was no connection, or no place for a write, in time.
    pub(crate) const LATE: Self = Self::NoConnection(TOO_LONG);

    /// Whether it is [`Self::LATE`].
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::NoConnection(reason) if *reason == TOO_LONG)
    }

    /// The rule that refused the statement: its SQLSTATE, and its name where the server hands it on.
    pub fn refusal(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Refused { code, name, .. } => Some((code, name.as_deref())),
            _ => None,
        }
    }

    /// Whether a retry later may succeed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoConnection(_))
    }

    /// Whether another transaction held a row for too long.
    pub fn is_locked(&self) -> bool {
        self.code().as_deref() == Some(LOCK_NOT_AVAILABLE)
    }

    /// Whether the values of the statement are what the database cannot take, so that the same statement fails again.
    pub fn is_of_the_data(&self) -> bool {
        // Data exceptions, and values above a limit of the server.
        let is_of_values = |code: &str| code.starts_with("22") || code.starts_with("54");
        matches!(self, Self::Refused { .. }) || self.code().as_deref().is_some_and(is_of_values)
    }

    /// Whether the server takes no writes: it is a standby now, or was set so.
    pub(crate) fn is_read_only(&self) -> bool {
        self.code().as_deref() == Some(READ_ONLY)
    }

    /// Whether nobody answered in our own time. The operating system's time-out says that the server is gone.
    pub(crate) fn is_unanswered(&self) -> bool {
        let is_ours = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
        matches!(self, Self::Unavailable(sqlx::Error::Io(error)) if is_ours(error))
    }

    /// Whether the connection is broken.
    pub(crate) fn is_broken_connection(&self) -> bool {
        match self {
            Self::Unavailable(error @ sqlx::Error::Database(_)) => blamed(error) == Some(Blame::Connection),
            Self::Unavailable(_) => true,
            // Client and server may no longer agree on the position in the stream.
            Self::Statement(error) => matches!(error, sqlx::Error::Protocol(_)),
            Self::NoConnection(_) | Self::Refused { .. } => false,
        }
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) | Self::Statement(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        }
    }
}

/// Who must act on an error of Postgres. `None` for an error of the driver.
pub(crate) fn blamed(error: &sqlx::Error) -> Option<Blame> {
    let sqlx::Error::Database(error) = error else { return None };
    Some(match error.code().map_or(Blame::Request, |code| blame(&code)) {
        _ if is_the_end(&**error) => Blame::Connection,
        Blame::Statements if is_unsupported(&**error) => Blame::Request,
        blame => blame,
    })
}

/// After such an error the server closes the connection, whatever the SQLSTATE.
fn is_the_end(error: &(dyn sqlx::error::DatabaseError + 'static)) -> bool {
    let severity = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
}

/// 0A000 has two meanings: an outdated statement, and a feature that the server lacks. Postgres says which by the routine
/// that raised it, in every language and version. To prepare such a statement again would help nobody.
fn is_unsupported(error: &(dyn sqlx::error::DatabaseError + 'static)) -> bool {
    let routine = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine);
    error.code().as_deref() == Some(OUTDATED_OR_UNSUPPORTED) && routine.is_some_and(|routine| routine != REVALIDATES)
}

/// What compares a prepared statement with the schema.
const REVALIDATES: &str = "RevalidateCachedQuery";

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match (&error, blamed(&error)) {
            (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed, _)
            | (_, Some(Blame::Statements | Blame::Connection | Blame::Server)) => Self::Unavailable(error),
            (sqlx::Error::Database(refusal), _) => {
                let (name, code) =
                    (refusal.constraint().map(str::to_owned), refusal.code().unwrap_or_default().into_owned());
                if name.is_some() || is_of_a_rule(&code) {
                    Self::Refused { code, name, source: error }
                } else {
                    Self::Statement(error)
                }
            }
            _ => Self::Statement(error),
        }
    }
}

impl From<PoolError<sqlx::Error>> for DatabaseError {
    fn from(error: PoolError<sqlx::Error>) -> Self {
        match error {
            // The request is not the cause of an error at opening a connection.
            PoolError::Backend(error) => Self::Unavailable(error),
            PoolError::Timeout(_) => Self::LATE,
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::NoConnection("the pool is closed")
            }
        }
    }
}
