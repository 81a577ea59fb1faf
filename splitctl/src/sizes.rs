//! Sizes in bytes, as flags take them and messages show them.

/// The units, the largest first. A megabyte is a million bytes.
const UNITS: [(&str, f64); 5] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)];

/// Parses a size such as `10GB`, `500 MB` or `4096`.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(if unit.is_empty() { "B" } else { unit }));
    let size = unit.zip(number.parse::<f64>().ok()).map(|((_, bytes), number)| number * bytes);
    size.filter(|size| *size >= 1.0 && *size < 1e18)
        .map(|size| size as u64)
        .ok_or("a size is a number with kB, MB, GB or TB".to_owned())
}

/// Shows a size with its unit and at most three digits.
pub fn show(bytes: impl TryInto<u64>) -> String {
    let bytes = bytes.try_into().unwrap_or(0);
    let (unit, of) = UNITS.into_iter().find(|(_, of)| bytes as f64 >= *of).unwrap_or(("B", 1.0));
    let number = bytes as f64 / of;
    if number < 10.0 && of > 1.0 { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::{parse, show};

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        assert_eq!(parse("10GB"), Ok(10_000_000_000));
        assert_eq!(parse(" 1.5 mb "), Ok(1_500_000));
        assert_eq!(parse("4096"), Ok(4096));
        for wrong in ["", "GB", "10 XB", "-1GB", "0", "1e3", "99999999999TB"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_shown_with_its_largest_unit() {
        assert_eq!([0_i64, 999, 1_000, 1_500_000, 25_000_000_000].map(show), ["0 B", "999 B", "1.0 kB", "1.5 MB", "25 GB"]);
        assert_eq!(show(-1_i64), "0 B");
    }
}
