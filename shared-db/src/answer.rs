//! The time by which the server must answer.

use std::io;

use tokio::time::{Instant, timeout_at};

/// The outcome of `statement`, or a broken connection at `limit`: the server, or the network, does not answer.
///
/// # Errors
/// The statement's.
pub async fn by<T>(
    limit: Option<Instant>,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match limit {
        Some(limit) => match timeout_at(limit, statement).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
        },
        None => statement.await,
    }
}
