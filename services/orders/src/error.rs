//! The service's errors, and the problem that a client gets for each.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chassis::http::problem::{FieldError, Problem};
use chassis::remote::RemoteError;
use shared_db::{DatabaseError, SchemaError};

use crate::domain::InvalidTransition;
use crate::events::LogError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No order has this id, or the order was placed after the time in `as_of`.
    #[error("there is no order with this id, or there was none at that time")]
    NotFound,
    /// The event that `as_of` asks for is archived.
    #[error("the order's events up to that time were archived: ask for a later time")]
    Archived,
    /// The order's user does not exist.
    #[error("there is no user with this id")]
    UnknownUser,
    /// The order's user may not order.
    #[error("the user is deactivated and cannot order")]
    UserDeactivated,
    /// The users service, which knows whether the user may order, does not answer.
    #[error("the users service does not answer now")]
    CustomersUnavailable(#[from] RemoteError),
    /// The replica of the customers does not contain the order's user yet.
    #[error("the user is not known to the orders service yet")]
    CustomerNotKnownYet,
    /// The order's status does not allow this step.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// The key was used with another request.
    #[error("this Idempotency-Key was used for another order: choose a new one for a new order")]
    IdempotencyKeyReused,
    /// Other requests changed the same order first, at every attempt.
    #[error("other requests are changing the order now")]
    Contended,
    /// The request is malformed.
    #[error(transparent)]
    Request(#[from] Problem),
    /// The order's events are unreadable, or contradict each other.
    #[error("the order cannot be folded from its events")]
    Log(#[from] LogError),
    /// The database lacks a migration, or did not answer when asked.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        // An engine of several nodes hands on no names. The user is the only reference that a client chooses.
        match error.refusal() {
            Some(("23503", Some("orders_user_id_fkey") | None)) => Self::UnknownUser,
            Some(("RU001", _) | (_, Some("orders_user_active"))) => Self::UserDeactivated,
            Some(("RU002", _) | (_, Some("orders_user_known"))) => Self::CustomerNotKnownYet,
            _ => Self::Database(error),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NotFound => Self::not_found(detail),
            Error::Archived => Self::new(StatusCode::GONE, detail).typed("events-archived", "Events archived"),
            Error::UnknownUser => {
                let at = FieldError { pointer: "/user_id".to_owned(), detail };
                Self::invalid(vec![at]).typed("unknown-user", "Unknown user")
            }
            Error::UserDeactivated => Self::conflict(detail).typed("user-deactivated", "User deactivated"),
            Error::InvalidTransition(_) => Self::conflict(detail).typed("invalid-transition", "Invalid transition"),
            Error::IdempotencyKeyReused => {
                Self::invalid(Vec::new()).detailed(detail).typed("idempotency-key-reused", "Idempotency key reused")
            }
            Error::Contended | Error::CustomerNotKnownYet => Self::unavailable(detail),
            Error::CustomersUnavailable(error) => Self::unavailable(detail).caused_by(error),
            Error::Request(problem) => problem,
            Error::Schema(SchemaError::Missing(_)) => Self::unavailable(detail),
            Error::Schema(SchemaError::Database(error)) | Error::Database(error) if error.is_unavailable() => {
                Self::unavailable("the database cannot be used now").caused_by(error)
            }
            Error::Schema(error) => Self::internal().caused_by(error),
            Error::Database(error) => Self::internal().caused_by(error),
            Error::Log(_) => Self::internal().caused_by(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
