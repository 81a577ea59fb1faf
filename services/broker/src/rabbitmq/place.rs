//! A place in a stream, as a consumer stores it.
//!
//! An offset alone does not prove that nothing is lost. Offsets have gaps, where the server keeps records of its own, and a
//! stream that was deleted and made anew begins at 0 again. So a place names the last message that was applied. While the
//! stream still has this message at this offset, every message behind it is there, too, because a stream is shortened from
//! its beginning.

use std::fmt;
use std::str::FromStr;

/// Where to go on in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At the first message, which has the offset 0.
    Start,
    /// Behind the message with this offset and event id.
    After { offset: i64, id: String },
}

/// The text is not a place.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a place in a stream")]
pub(super) struct NoPlace(String);

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => formatter.write_str("start"),
            Self::After { offset, id } => write!(formatter, "{offset} {id}"),
        }
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if text == "start" {
            return Ok(Self::Start);
        }
        let parts = text.split_once(' ').and_then(|(offset, id)| Some((offset.parse().ok()?, id.to_owned())));
        parts.map(|(offset, id)| Self::After { offset, id }).ok_or_else(|| NoPlace(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_as_it_was_stored() {
        for place in [Place::Start, Place::After { offset: 7, id: "an id with spaces/3".to_owned() }] {
            assert_eq!(place.to_string().parse::<Place>().expect("a place"), place);
        }
        for text in ["", "7", "x 7", "0x7 id"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
