//! What can go wrong, and what the client is told of it.

use axum::response::{IntoResponse, Response};
use chassis::http::problem::{FieldError, Problem};
use chassis::remote::RemoteError;
use shared_db::{DatabaseError, SchemaError};

use crate::domain::{FoldError, InvalidTransition};
use crate::events::Unreadable;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No order has this id, or it had not been placed by the moment asked for.
    #[error("there is no order with this id, or there was none then")]
    NotFound,
    /// `If-Match` names another version.
    #[error("the order has changed")]
    PreconditionFailed,
    /// The order's user does not exist.
    #[error("there is no user with this id")]
    UnknownUser,
    /// The order's user may not order.
    #[error("the user is deactivated and cannot order")]
    UserDeactivated,
    /// Users cannot be asked at this moment whether the user may order.
    #[error("users cannot be asked at this moment")]
    CustomersUnavailable(#[from] RemoteError),
    /// The replica of the customers has not heard of the order's user.
    #[error("the user is not known here yet")]
    CustomerNotKnownYet,
    /// The order is not in a state for it.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// The key belongs to another request.
    #[error("this Idempotency-Key was used for another order: choose a new one for a new order")]
    IdempotencyKeyReused,
    /// Others changed the same order again and again.
    #[error("the order is being changed by others at this moment")]
    Contended,
    /// The request itself is not right.
    #[error("the request is not right")]
    Request(Problem),
    /// The log holds an event that cannot be read.
    #[error("an event of the log cannot be read")]
    Unreadable(#[from] Unreadable),
    /// The log is not that of an order.
    #[error("the events of the order do not fit together")]
    Fold(#[from] FoldError),
    /// The schema is not as needed.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        match error.constraint() {
            Some("orders_user_id_fkey") => Self::UnknownUser,
            Some("orders_user_active") => Self::UserDeactivated,
            Some("orders_user_known") => Self::CustomerNotKnownYet,
            _ => Self::Database(error),
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Request(problem)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NotFound => Self::not_found(detail),
            Error::PreconditionFailed => Self::precondition_failed(),
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
                Self::unavailable("the database cannot be used at this moment").caused_by(error)
            }
            Error::Schema(error) => Self::internal().caused_by(error),
            Error::Database(error) => Self::internal().caused_by(error),
            Error::Unreadable(_) | Error::Fold(_) => Self::internal().caused_by(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
