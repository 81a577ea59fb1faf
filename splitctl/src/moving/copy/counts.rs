//! What the workers of a copy have done so far, and how fast they may go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::moving::progress::Progress;
use crate::names::Qualified;

/// Rows, bytes and tables of all workers.
pub struct Counts {
    rows: AtomicU64,
    bytes: AtomicU64,
    /// The parts that are done of each table.
    parts: Mutex<BTreeMap<Qualified, i32>>,
    finished: AtomicU64,
    begun: Instant,
    /// Bytes a second.
    most: Option<u64>,
}

impl Counts {
    /// Begins to count. `most` is how many bytes a second all workers together may copy.
    pub fn new(most: Option<u64>) -> Self {
        let (rows, bytes, finished) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { rows, bytes, parts: Mutex::default(), finished, begun: Instant::now(), most }
    }

    /// Adds rows and bytes. Returns how long to wait, if that was too fast.
    pub fn add(&self, rows: u64, bytes: u64) -> Duration {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let due = self.most.map(|most| Duration::from_secs_f64(bytes as f64 / most.max(1) as f64));
        due.map_or(Duration::ZERO, |due| due.saturating_sub(self.begun.elapsed()))
    }

    /// Counts a part of a table that has so many.
    pub fn finish(&self, table: &Qualified, of: i32) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let done = parts.entry(table.clone()).or_default();
        *done += 1;
        if *done == of {
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows all that.
    pub fn report(&self, progress: &Progress, tables: usize) {
        progress.count_tables(usize::try_from(self.finished.load(Ordering::Relaxed)).unwrap_or(tables), tables);
        progress.report(self.rows.load(Ordering::Relaxed), Some(self.bytes.load(Ordering::Relaxed)));
    }
}
