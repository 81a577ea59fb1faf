//! How long writers were held up, and by what.

use std::cell::Cell;
use std::time::Instant;

use serde::Serialize;

/// The pause, broken down, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pause {
    /// All of it.
    pub total: f64,
    /// Waiting for the lock.
    pub lock: f64,
    /// The marker's way through the stream; fencing and comparing definitions meanwhile.
    pub stream: f64,
    /// Sequences and epochs.
    pub sequences: f64,
    /// The start of the way back.
    pub way_back: f64,
    /// Opening the other side.
    pub opening: f64,
    /// The commit.
    pub commit: f64,
}

/// Laps of the pause.
pub struct Clock {
    begun: Instant,
    lap: Cell<Instant>,
}

impl Clock {
    /// Runs from a moment on.
    pub fn new(begun: Instant) -> Self {
        Self { begun, lap: Cell::new(begun) }
    }

    /// Milliseconds since the last one.
    pub fn lap(&self) -> f64 {
        let now = Instant::now();
        let lap = self.lap.replace(now);
        (now - lap).as_secs_f64() * 1000.0
    }

    /// Milliseconds since the begin.
    pub fn total(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1000.0
    }
}
