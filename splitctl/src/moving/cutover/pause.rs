//! How long writers waited, and for what.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The pause and its parts, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pause {
    /// From the request for the lock to the commit. With poolers, from their pause until the last client may go on.
    pub total: f64,
    /// Waiting until no client of a pooler is in a transaction.
    pub pooler: f64,
    /// Waiting for the lock.
    pub lock: f64,
    /// The marker's way through the stream. The definitions are compared meanwhile.
    pub stream: f64,
    /// Setting the sequences that have changed, and a flush on the other side.
    pub sequences: f64,
    /// Advancing the slot of the way back.
    pub way_back: f64,
    /// Opening the other side.
    pub opening: f64,
    /// The commit.
    pub commit: f64,
    /// Turning the poolers to the other side.
    pub turning: f64,
}

/// Measures the parts of the pause.
pub struct Clock {
    begun: Instant,
    lap: Instant,
}

impl Clock {
    /// Starts at this moment.
    pub fn new(begun: Instant) -> Self {
        Self { begun, lap: begun }
    }

    /// Milliseconds since the last lap.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let last = std::mem::replace(&mut self.lap, now);
        (now - last).as_secs_f64() * 1000.0
    }

    /// The same for a part that somebody else has measured.
    pub fn skip(&mut self, part: Duration) -> f64 {
        self.lap += part;
        part.as_secs_f64() * 1000.0
    }

    /// Milliseconds since the start.
    pub fn total(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1000.0
    }
}

/// Limits of the transaction that holds the locks: the server ends a statement that takes longer, and the transaction if
/// nothing is sent for that long.
pub fn limits(limit: Duration) -> String {
    let milliseconds = limit.as_millis().max(1);
    format!(
        "set local statement_timeout = {milliseconds};
         set local lock_timeout = {milliseconds};
         set local idle_in_transaction_session_timeout = {milliseconds}"
    )
}
