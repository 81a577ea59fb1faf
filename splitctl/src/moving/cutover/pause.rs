//! How long writers waited, and for what.

use std::time::Instant;

use serde::Serialize;

/// The pause and its parts, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pause {
    /// From the request for the lock to the commit.
    pub total: f64,
    /// Waiting for the lock.
    pub lock: f64,
    /// The marker's way through the stream. The fence is made and the definitions are compared meanwhile.
    pub stream: f64,
    /// Setting sequences and epochs.
    pub sequences: f64,
    /// Advancing the slot of the way back.
    pub way_back: f64,
    /// Opening the other side.
    pub opening: f64,
    /// The commit.
    pub commit: f64,
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

    /// Milliseconds since the start.
    pub fn total(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1000.0
    }
}
