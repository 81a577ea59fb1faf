//! New values for unique columns, of the same shape as the old ones: a check that takes the old value takes the new one.

use std::hash::{BuildHasher, RandomState};

use crate::proof::tables::Column;

/// Another value for a column. `None` if its type has no value of which one can say that no row has it.
pub(super) fn renew(column: &Column, value: &str) -> Option<String> {
    Some(match column.base.as_str() {
        // Numbers that sequences reach late.
        "smallint" => (20_000 + random() % 12_000).to_string(),
        "integer" => (1_500_000_000 + random() % 600_000_000).to_string(),
        "bigint" => ((1 << 52) + random() % (1 << 52)).to_string(),
        "uuid" => {
            let (high, low) = (format!("{:016x}", random()), format!("{:016x}", random()));
            format!("{}-{}-4{}-8{}-{}", &high[..8], &high[8..12], &high[13..], &low[1..4], &low[4..])
        }
        "bytea" => format!("\\x{:016x}{:016x}", random(), random()),
        _ if column.category == "S" || column.base == "numeric" => vary(value)?,
        _ => return None,
    })
}

/// The text with other letters and digits in the places of its letters and digits.
fn vary(value: &str) -> Option<String> {
    let (mut varied, mut source) = (String::new(), 0_u64);
    for (at, character) in value.chars().enumerate() {
        source = if at % 8 == 0 { random() } else { source >> 7 };
        let pick = |first: u8, count: u64| char::from(first + u8::try_from(source % count).unwrap_or_default());
        varied.push(match character {
            // The first digit of a number stays what it is: no zero comes to lead.
            '1'..='9' if varied.is_empty() => pick(b'1', 9),
            '0'..='9' if !varied.is_empty() => pick(b'0', 10),
            'a'..='z' => pick(b'a', 26),
            'A'..='Z' => pick(b'A', 26),
            other => other,
        });
    }
    (varied != value).then_some(varied)
}

/// The standard library seeds its hashes from the system's random numbers.
fn random() -> u64 {
    RandomState::new().hash_one(0) >> 1
}

#[cfg(test)]
mod tests {
    use super::vary;

    #[test]
    fn a_varied_text_has_the_shape_of_the_first() {
        let varied = vary("ab-12345 XY@example.org").expect("another");
        let shape = |text: &str| {
            let class = |character: char| match character {
                '0'..='9' => '0',
                'a'..='z' => 'a',
                'A'..='Z' => 'A',
                other => other,
            };
            text.chars().map(class).collect::<String>()
        };
        assert_eq!(shape(&varied), shape("ab-12345 XY@example.org"));
        assert_eq!(vary("–"), None);
    }
}
