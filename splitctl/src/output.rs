//! All that the program prints: results go to standard output, progress and errors to standard error.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::exit;

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON document.
    Json,
}

/// The flag of every command that prints a result.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Lines for people, or one JSON document
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Whether progress is printed as JSON: one object a line.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether the command's progress is for a program.
pub fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

impl Output {
    /// Has progress look as the result will. A command with long work calls it before.
    pub fn begin(&self) {
        IS_JSON.store(self.format == Format::Json, Ordering::Relaxed);
    }

    /// Prints the document as JSON, or the text that stands for it.
    ///
    /// A closed pipe (`splitctl audit | head`) is no error: the reader has seen enough. The program exits if standard output
    /// fails in another way, because a script would take a missing document for an empty one.
    pub fn print(&self, document: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self.format {
            Format::Text => text(),
            Format::Json => serde_json::to_string(document).expect("strings and numbers are JSON"),
        };
        if text.is_empty() {
            return;
        }
        match writeln!(stdout().lock(), "{}", text.trim_end()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                note(format_args!("error: the result cannot be written: {error}"));
                std::process::exit(exit::FAILED.into());
            }
            _ => {}
        }
    }
}

/// Prints a line of progress, or an error. A closed standard error stops nothing.
pub fn note(line: impl Display) {
    let _ = writeln!(stderr().lock(), "{line}");
}
