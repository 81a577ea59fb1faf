//! Numbers as people read them.

/// A count, with thin spaces between thousands.
pub fn count(number: impl TryInto<i64>) -> String {
    let digits = number.try_into().unwrap_or(i64::MAX).max(0).to_string();
    let mut shown = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// A count of things: "1 error", "2 errors".
pub fn count_of(number: usize, thing: &str) -> String {
    format!("{} {thing}{}", count(i64::try_from(number).unwrap_or(i64::MAX)), if number == 1 { "" } else { "s" })
}

/// A size.
pub fn bytes(bytes: i64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (bytes.max(0) as f64, 0);
    while size >= 1000.0 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 || size >= 100.0 { format!("{size:.0} {}", units[unit]) } else { format!("{size:.1} {}", units[unit]) }
}

/// A time in seconds.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..100 => format!("{seconds:.1} s"),
        100..7200 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A time in milliseconds.
pub fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, milliseconds, seconds};

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!((count(1_234_567), count(12)), ("1\u{202f}234\u{202f}567".to_owned(), "12".to_owned()));
        assert_eq!((bytes(999), bytes(1_500_000)), ("999 bytes".to_owned(), "1.5 MB".to_owned()));
        assert_eq!((seconds(3.21), seconds(125.0)), ("3.2 s".to_owned(), "2 min 05 s".to_owned()));
        assert_eq!((milliseconds(3.21), milliseconds(125.2)), ("3.2 ms".to_owned(), "125 ms".to_owned()));
    }
}
