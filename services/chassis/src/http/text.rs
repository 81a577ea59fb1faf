//! Rules for text from outside.

use std::ops::RangeInclusive;

/// Checks that `text` has a `length` in Unicode scalar values and holds no control character: Postgres cannot store a NUL,
/// and the others confuse logs and terminals.
///
/// # Errors
/// What the text must be, to follow a field's name.
pub fn check(text: &str, length: RangeInclusive<usize>) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    if !length.contains(&text.chars().count()) {
        return Err(format!("must have {} to {} characters", length.start(), length.end()));
    }
    Ok(())
}
