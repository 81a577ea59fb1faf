//! The service's errors, and the problem that a client gets for each.

use axum::response::{IntoResponse, Response};
use chassis::http::problem::Problem;
use chassis::remote::RemoteError;
use shared_db::{DatabaseError, SchemaError};

use crate::domain::Deactivated;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No user has this id.
    #[error("there is no user with this id")]
    NotFound,
    /// Another user has this email address.
    #[error("another user has this email address")]
    EmailTaken,
    /// The user is deactivated.
    #[error(transparent)]
    Deactivated(#[from] Deactivated),
    /// The user has open orders.
    #[error("the user has open orders: they must be delivered or cancelled first")]
    OpenOrders,
    /// The orders service, which knows the user's open orders, does not answer.
    #[error("the orders service does not answer now")]
    OrdersUnavailable(#[from] RemoteError),
    /// Other requests changed the same user first, at every attempt.
    #[error("other requests are changing the user now")]
    Contended,
    /// The request is malformed.
    #[error(transparent)]
    Request(#[from] Problem),
    /// The database lacks a migration, or did not answer when asked.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        // An engine of several nodes hands on no names. The address is the only unique value that a client chooses.
        match error.refusal() {
            Some(("23505", Some("users_email_key") | None)) => Self::EmailTaken,
            Some(("RU003", _) | (_, Some("users_no_open_orders"))) => Self::OpenOrders,
            _ => Self::Database(error),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NotFound => Self::not_found(detail),
            Error::EmailTaken => Self::conflict(detail).typed("email-taken", "Email address taken"),
            Error::Deactivated(_) => Self::conflict(detail).typed("user-deactivated", "User deactivated"),
            Error::OpenOrders => Self::conflict(detail).typed("open-orders", "Open orders"),
            Error::Contended => Self::unavailable(detail),
            Error::OrdersUnavailable(error) => Self::unavailable(detail).caused_by(error),
            Error::Request(problem) => problem,
            Error::Schema(SchemaError::Missing(_)) => Self::unavailable(detail),
            Error::Schema(SchemaError::Database(error)) | Error::Database(error) if error.is_unavailable() => {
                Self::unavailable("the database cannot be used now").caused_by(error)
            }
            Error::Schema(error) => Self::internal().caused_by(error),
            Error::Database(error) => Self::internal().caused_by(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
