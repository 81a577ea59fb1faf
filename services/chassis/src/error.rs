//! Errors in words.

use std::error::Error;

/// The error and its sources, one level after the other, for the log.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let level = error.to_string();
        // A transparent error repeats its source.
        if !text.ends_with(&level) {
            text.push_str(": ");
            text.push_str(&level);
        }
        source = error.source();
    }
    text
}
