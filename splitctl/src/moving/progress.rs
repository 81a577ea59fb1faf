//! Progress of long work, on standard error: a bar on a terminal, else a line now and then.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};

/// How often a line tells how far it got, where there is no terminal.
const REPORT: Duration = Duration::from_secs(5);

/// How far some work on rows got.
pub struct Progress {
    bar: ProgressBar,
    doing: String,
    expected: u64,
    begun: Instant,
    reported: Cell<Instant>,
}

impl Progress {
    /// Of work on about so many rows.
    pub fn new(doing: &str, expected: u64) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:24} {percent}%").expect("a template of known names");
        let bar = ProgressBar::new(expected.max(1)).with_style(style);
        let now = Instant::now();
        Self { bar, doing: doing.to_owned(), expected, begun: now, reported: Cell::new(now) }
    }

    /// So many rows are done, and so many bytes if they are counted.
    pub fn at(&self, rows: u64, bytes: Option<u64>) {
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
            self.doing,
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
