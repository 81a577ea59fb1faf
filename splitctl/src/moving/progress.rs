//! Progress of long work, on standard error: a bar on a terminal, else a line every ten seconds. With `--format json` each
//! line is an object.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::output::{self, note};
use crate::sizes::show;

/// How often it prints a line where there is no terminal.
pub const REPORT: Duration = Duration::from_secs(10);

const BAR: &str = "{bar:24} {percent}%, {msg}";

/// How far work on rows is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Point {
    /// "copying" or "comparing".
    pub activity: String,
    /// The number of tables that are done, and of all, where they are counted.
    pub tables: Option<(u64, u64)>,
    /// The number of rows that are done.
    pub rows: u64,
    /// The number of rows to do, as Postgres' planner estimates it.
    pub expected_rows: u64,
    /// The bytes that are done, where they are counted.
    pub bytes: Option<u64>,
    /// Rows a second so far.
    pub rows_per_second: u64,
    /// Bytes a second so far.
    pub bytes_per_second: Option<u64>,
    /// The seconds left, if rows go on as they did so far.
    pub seconds_left: Option<u64>,
}

impl Point {
    /// Fills in the rates and the time that is left.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Self {
        let done = (self.rows, self.bytes.unwrap_or(0));
        self.at_rate(done, elapsed)
    }

    /// Does the same, if these rows and bytes were done in that time.
    #[must_use]
    pub fn at_rate(self, (rows, bytes): (u64, u64), elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(0.001);
        // The estimate may be wrong until all tables are done.
        let is_done = self.tables.is_some_and(|(done, of)| done == of);
        let expected_rows = if is_done { self.rows } else { self.expected_rows.max(self.rows) };
        let rate = rows as f64 / seconds;
        Self {
            expected_rows,
            rows_per_second: rate as u64,
            bytes_per_second: self.bytes.map(|_| (bytes as f64 / seconds) as u64),
            seconds_left: (rate > 0.0).then(|| ((expected_rows - self.rows) as f64 / rate).ceil() as u64),
            ..self
        }
    }

    /// A line for people.
    pub fn text(&self) -> String {
        let mut text = format!("{}: ", self.activity);
        if let Some((done, of)) = self.tables {
            text += &format!("{done} of {of} tables, ");
        }
        text += &format!("{} of about {} rows", HumanCount(self.rows), HumanCount(self.expected_rows));
        if let Some(bytes) = self.bytes {
            text += &format!(", {}", show(bytes));
        }
        text += &match self.bytes_per_second {
            Some(rate) => format!(", {} a second", show(rate)),
            None => format!(", {} rows a second", HumanCount(self.rows_per_second)),
        };
        if let Some(seconds) = self.seconds_left {
            text += &format!(", about {} left", humantime::format_duration(Duration::from_secs(seconds)));
        }
        text
    }
}

/// The progress of work on rows.
pub struct Progress {
    bar: ProgressBar,
    point: RefCell<Point>,
    begun: Instant,
    printed: Cell<Instant>,
    has_printed: Cell<bool>,
    has_begun: Cell<bool>,
}

impl Progress {
    /// Begins with an estimate of the number of rows. `activity` is "copying" or "comparing".
    pub fn new(activity: &str, expected: i64) -> Self {
        let expected_rows = expected.max(1).unsigned_abs();
        let style = ProgressStyle::with_template(BAR).expect("a template of known names");
        let bar = if output::is_json() { ProgressBar::hidden() } else { ProgressBar::new(expected_rows).with_style(style) };
        let point = RefCell::new(Point { activity: activity.to_owned(), expected_rows, ..Point::default() });
        let now = Instant::now();
        let (has_printed, has_begun) = (Cell::new(false), Cell::new(false));
        Self { bar, point, begun: now, printed: Cell::new(now), has_printed, has_begun }
    }

    /// Says how many tables are done, of how many.
    pub fn count_tables(&self, done: usize, of: usize) {
        self.point.borrow_mut().tables = Some((done as u64, of as u64));
    }

    /// Reports the rows that are done, and the bytes if they are counted.
    pub fn report(&self, rows: u64, bytes: Option<u64>) {
        self.has_begun.set(true);
        let point = Point { rows, bytes, ..self.point.borrow().clone() };
        *self.point.borrow_mut() = point.after(self.begun.elapsed());
        if self.bar.is_hidden() {
            if self.printed.get().elapsed() >= REPORT {
                self.print();
            }
            return;
        }
        let point = self.point.borrow();
        self.bar.set_length(point.expected_rows);
        self.bar.set_position(rows);
        self.bar.set_message(point.text());
    }

    fn print(&self) {
        self.printed.set(Instant::now());
        self.has_printed.set(true);
        let point = self.point.borrow();
        match output::is_json() {
            true => note(serde_json::to_string(&*point).expect("numbers are JSON")),
            false => note(point.text()),
        }
    }
}

impl Drop for Progress {
    /// A reader of lines sees the end, unless there was nothing to see before.
    fn drop(&mut self) {
        if self.has_begun.get() && (output::is_json() || self.has_printed.get()) {
            self.print();
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Point;

    #[test]
    fn a_line_says_tables_rows_bytes_rate_and_the_time_left() {
        let point = Point {
            activity: "copying".to_owned(),
            tables: Some((3, 12)),
            rows: 2_000,
            expected_rows: 10_000,
            bytes: Some(4_000_000),
            ..Point::default()
        };
        let said = point.after(Duration::from_secs(2)).text();
        let expected = "copying: 3 of 12 tables, 2,000 of about 10,000 rows, 4.0 MB, 2.0 MB a second, about 8s left";
        assert_eq!(said, expected);
    }

    #[test]
    fn when_all_tables_are_done_no_row_is_left() {
        let point = Point { rows: 7, expected_rows: 500, tables: Some((2, 2)), ..Point::default() };
        assert_eq!(point.after(Duration::from_secs(1)).seconds_left, Some(0));
    }

    #[test]
    fn an_estimate_that_was_too_low_grows_with_the_rows() {
        let point = Point { rows: 7, expected_rows: 5, ..Point::default() }.after(Duration::from_secs(1));
        assert_eq!((point.expected_rows, point.seconds_left), (7, Some(0)));
    }
}
