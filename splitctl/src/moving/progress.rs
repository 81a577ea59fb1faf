//! Progress of long work, on standard error: a bar on a terminal, else a line every few seconds.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};

/// How often it prints a line where there is no terminal.
const REPORT: Duration = Duration::from_secs(5);

/// The progress of work on rows.
pub struct Progress {
    bar: ProgressBar,
    activity: String,
    expected: u64,
    begun: Instant,
    reported: Cell<Instant>,
}

impl Progress {
    /// Begins with an estimate of the number of rows. `activity` is "copying" or "comparing".
    pub fn new(activity: &str, expected: i64) -> Self {
        let expected = expected.max(0).unsigned_abs();
        let style = ProgressStyle::with_template("{msg} {bar:24} {percent}%").expect("a template of known names");
        let bar = ProgressBar::new(expected.max(1)).with_style(style);
        let now = Instant::now();
        Self { bar, activity: activity.to_owned(), expected, begun: now, reported: Cell::new(now) }
    }

    /// Reports the rows that are done, and the bytes if they are counted.
    pub fn report(&self, rows: u64, bytes: Option<u64>) {
        self.bar.set_length(self.expected.max(rows).max(1));
        self.bar.set_position(rows);
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let rate = rows as f64 / seconds;
        let bytes = bytes.map(|bytes| format!(", {}", HumanBytes(bytes))).unwrap_or_default();
        let left = if rate > 0.0 && self.expected > rows {
            let left = Duration::from_secs_f64((self.expected - rows) as f64 / rate);
            format!(", about {} left", HumanDuration(left))
        } else {
            String::new()
        };
        let line = format!(
            "{}: {} of about {} rows{bytes}, {} rows/s{left}",
            self.activity,
            HumanCount(rows),
            HumanCount(self.expected.max(rows)),
            HumanCount(rate as u64)
        );
        if self.bar.is_hidden() && self.reported.get().elapsed() >= REPORT {
            self.reported.set(Instant::now());
            eprintln!("{line}");
        }
        self.bar.set_message(line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
