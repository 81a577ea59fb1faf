//! How results look: lines for people, or JSON for scripts. Progress and errors go to standard error.

use clap::{Args, ValueEnum};
use serde::Serialize;

/// The choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON document.
    Json,
}

/// The option that every command which tells something has.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Lines for people, or one JSON document
    #[arg(long, default_value = "text")]
    pub format: Format,
}

impl Output {
    /// Prints the one or the other.
    pub fn tell(&self, document: &impl Serialize, text: impl FnOnce() -> String) {
        match self.format {
            Format::Text => {
                let text = text();
                if !text.is_empty() {
                    println!("{}", text.trim_end());
                }
            }
            Format::Json => println!("{}", serde_json::to_string(document).expect("strings and numbers are JSON")),
        }
    }
}
