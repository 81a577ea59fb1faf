//! The time by which the server must answer, or a place must be free.

use std::io;
use std::pin::Pin;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

/// [`Timer::by`] without a timer that is kept.
///
/// # Errors
/// The statement's.
pub(crate) async fn by<T>(
    limit: Option<Instant>,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match limit {
        Some(limit) => timeout_at(limit, statement).await.unwrap_or_else(|_elapsed| Err(late())),
        None => statement.await,
    }
}

/// A timer that is kept, for one use after another. Each of tokio's timers begins and ends under a lock of the runtime, for
/// which its threads wait. A timer that goes on is set to a later time without it, and goes off once in all that time.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// The outcome of `statement`, or a broken connection at `limit`: the server, or the network, does not answer.
    ///
    /// # Errors
    /// The statement's.
    pub async fn by<T>(
        &mut self,
        limit: Option<Instant>,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        match limit {
            Some(limit) => self.until(limit, statement).await.unwrap_or_else(|| Err(late())),
            None => statement.await,
        }
    }

    /// What `work` brings, or `None` at `limit`.
    pub(crate) async fn until<T>(&mut self, limit: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(limit))).as_mut();
        sleep.as_mut().reset(limit);
        tokio::select! {
            biased;
            done = work => Some(done),
            // Without a budget: work that uses it up must end, too.
            () = unconstrained(sleep) => None,
        }
    }
}

fn late() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}
