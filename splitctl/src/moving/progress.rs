//! Progress of long work, on standard error: a bar on a terminal, else a line every few seconds.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// How often it prints a line where there is no terminal.
const REPORT: Duration = Duration::from_secs(5);

const BAR: &str = "{msg} {bar:24} {percent}%, {per_sec}, about {eta} left";

/// The progress of work on rows.
pub struct Progress {
    bar: ProgressBar,
    activity: &'static str,
    expected: u64,
    reported: Cell<Instant>,
}

impl Progress {
    /// Begins with an estimate of the number of rows. `activity` is "copying" or "comparing".
    pub fn new(activity: &'static str, expected: i64) -> Self {
        let expected = expected.max(1).unsigned_abs();
        let style = ProgressStyle::with_template(BAR).expect("a template of known names");
        let bar = ProgressBar::new(expected).with_style(style);
        Self { bar, activity, expected, reported: Cell::new(Instant::now()) }
    }

    /// Reports the rows that are done, and the bytes if they are counted.
    pub fn report(&self, rows: u64, bytes: Option<u64>) {
        // The estimate of the statistics may be too low.
        let expected = self.expected.max(rows);
        self.bar.set_length(expected);
        self.bar.set_position(rows);
        let bytes = bytes.map(|bytes| format!(", {}", HumanBytes(bytes))).unwrap_or_default();
        let line = format!("{}: {} of about {} rows{bytes}", self.activity, HumanCount(rows), HumanCount(expected));
        if self.bar.is_hidden() && self.reported.get().elapsed() >= REPORT {
            self.reported.set(Instant::now());
            crate::output::note(&line);
        }
        self.bar.set_message(line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
