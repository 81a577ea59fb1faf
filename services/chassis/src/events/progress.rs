//! Progress of long work, on standard error: a bar or a count on a terminal, else a line every few seconds.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const REPORT: Duration = Duration::from_secs(5);

/// The progress of some work.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    noun: &'static str,
    expected: Cell<u64>,
    reported: Cell<Instant>,
}

impl Progress {
    /// Progress of work on an unknown number of `noun`.
    pub fn new(noun: &'static str) -> Self {
        let template = format!("{{spinner}} {{human_pos}} {noun}, {{per_sec}}");
        let bar = ProgressBar::no_length().with_style(style(&template));
        Self { bar, noun, expected: Cell::new(0), reported: Cell::new(Instant::now()) }
    }

    /// Sets the estimated total.
    pub fn expect(&self, about: u64) {
        let template = format!("{{bar:30}} {{human_pos}} of about {{human_len}} {}, {{per_sec}}, {{eta}} left", self.noun);
        self.bar.set_style(style(&template));
        self.bar.set_length(about);
        self.expected.set(about);
    }

    /// Reports the number done.
    pub fn at(&self, done: u64) {
        let expected = self.expected.get();
        if expected > 0 {
            self.bar.set_length(expected.max(done));
        }
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.reported.get().elapsed() >= REPORT {
            self.reported.set(Instant::now());
            match expected.max(done) {
                _ if expected == 0 => eprintln!("{done} {}", self.noun),
                expected => eprintln!("{done} of about {expected} {}", self.noun),
            }
        }
    }

    /// Prints a line of the result, above the bar.
    pub fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template of known names")
}
