//! Types with limits. The reader of bodies and queries and the OpenAPI document both take the limits from the type.

use std::borrow::Cow;

use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::http::body::{FromValue, Value};
use crate::http::query::FromText;

/// A text of `MIN` to `MAX` characters (Unicode scalar values) without control characters, those for the direction of
/// writing among them. A body's text is kept in Unicode's normal form C, so that what looks the same is the same. `TRIM`
/// says whether it is measured and kept without the white space around it, and needs a character that a reader sees.
#[derive(Debug)]
pub struct Text<const MIN: usize, const MAX: usize, const TRIM: bool = false>(pub String);

/// A [`Text`] without white space around it.
pub type TrimmedText<const MIN: usize, const MAX: usize> = Text<MIN, MAX, true>;

/// The class of a regular expression for characters that are not for control, nor any of `$more`.
macro_rules! not_control {
    ($($more:literal)?) => {
        concat!("[^", $($more,)? r"\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]")
    };
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy)]
pub struct Whole<const MIN: i64, const MAX: i64>(pub i64);

/// A list of `MIN` to `MAX` elements.
#[derive(Debug)]
pub struct List<T, const MIN: usize, const MAX: usize>(pub Vec<T>);

impl<const MIN: usize, const MAX: usize, const TRIM: bool> FromText for Text<MIN, MAX, TRIM> {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        // Postgres cannot store a NUL, and the others confuse logs, terminals and readers.
        if text.chars().any(is_control) {
            return Err("must not contain control characters".into());
        }
        if !(MIN..=MAX).contains(&text.chars().count()) {
            return Err(format!("must have {MIN} to {MAX} characters").into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl<const MIN: usize, const MAX: usize, const TRIM: bool> FromValue for Text<MIN, MAX, TRIM> {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let text = value.string()?;
        let text = if TRIM { text.trim() } else { &text };
        // Measured as it was sent, and as it is kept: a few characters have no composed form, and grow.
        let read = Self::from_text(text)
            .and_then(|sent| if is_nfc(text) { Ok(sent) } else { Self::from_text(&text.nfc().collect::<String>()) });
        match read {
            Ok(_) if TRIM && !text.chars().any(is_visible) => value.reject("must have a visible character"),
            Ok(read) => Some(read),
            Err(reason) => value.reject(reason),
        }
    }
}

/// Whether the character controls a device or the direction of writing (UAX #9: embeddings, overrides and isolates).
fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a reader sees something.
fn is_visible(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_graphic();
    }
    // Letters and symbols that are blank.
    let blank = matches!(character, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}');
    let kind = character.general_category_group();
    let seen = [
        GeneralCategoryGroup::Letter,
        GeneralCategoryGroup::Number,
        GeneralCategoryGroup::Punctuation,
        GeneralCategoryGroup::Symbol,
    ];
    !blank && seen.contains(&kind)
}

impl<const MIN: usize, const MAX: usize, const TRIM: bool> PartialSchema for Text<MIN, MAX, TRIM> {
    fn schema() -> RefOr<Schema> {
        let pattern = if TRIM {
            // At least one character is not white space.
            concat!("^", not_control!(), "*", not_control!(r"\s"), not_control!(), "*$")
        } else {
            concat!("^", not_control!(), "*$")
        };
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        Schema::Object(text.min_length(Some(MIN)).max_length(Some(MAX)).build()).into()
    }
}

impl<const MIN: usize, const MAX: usize, const TRIM: bool> ToSchema for Text<MIN, MAX, TRIM> {}

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    fn within(number: Option<i64>) -> Result<Self, String> {
        let number = number.filter(|number| (MIN..=MAX).contains(number));
        number.map(Self).ok_or_else(|| format!("must be a whole number from {MIN} to {MAX}"))
    }
}

impl<const MIN: i64, const MAX: i64> FromText for Whole<MIN, MAX> {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        Ok(Self::within(text.parse().ok().filter(|_| digits))?)
    }
}

impl<const MIN: i64, const MAX: i64> FromValue for Whole<MIN, MAX> {
    /// Takes `1.0` as a whole number.
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let text = value.raw;
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return value.reject("must be a whole number");
        }
        // A float beyond 2^53 is not exact, and no range reaches that far.
        #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 53 bits fits")]
        let rounded = || text.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && n.abs() < 2f64.powi(53)).map(|n| n as i64);
        Self::within(text.parse().ok().or_else(rounded)).map_or_else(|reason| value.reject(reason), Some)
    }
}

impl<const MIN: i64, const MAX: i64> PartialSchema for Whole<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        // Clients add such numbers up, so 32 bits are not enough for the large ones.
        let format = if MAX > i64::from(i16::MAX) { KnownFormat::Int64 } else { KnownFormat::Int32 };
        let whole = ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(format)));
        Schema::Object(whole.minimum(Some(MIN as isize)).maximum(Some(MAX as isize)).build()).into()
    }
}

impl<const MIN: i64, const MAX: i64> ToSchema for Whole<MIN, MAX> {}

impl<T: FromValue, const MIN: usize, const MAX: usize> FromValue for List<T, MIN, MAX> {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(value.raw) else {
            return value.reject("must be an array");
        };
        if !(MIN..=MAX).contains(&elements.len()) {
            return value.reject(format!("must have {MIN} to {MAX} elements"));
        }
        let values = elements.into_iter().enumerate().map(|(index, raw)| T::from_value(&value.element(index, raw.get())));
        // Collected twice: the first pass reads all elements, so that the faults of each are recorded.
        values.collect::<Vec<Option<T>>>().into_iter().collect::<Option<_>>().map(Self)
    }
}

impl<T: ToSchema, const MIN: usize, const MAX: usize> PartialSchema for List<T, MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        let list = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        Schema::Array(list.min_items(Some(MIN)).max_items(Some(MAX)).build()).into()
    }
}

impl<T: ToSchema, const MIN: usize, const MAX: usize> ToSchema for List<T, MIN, MAX> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into(), T::schema()));
        T::schemas(schemas);
    }
}
