//! Types with limits. The reader of bodies and queries and the OpenAPI document both take the limits from the type.

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::body::{FromValue, Value};
use crate::http::query::FromText;
use crate::http::text;

/// A text of `MIN` to `MAX` characters without control characters.
#[derive(Debug)]
pub struct Text<const MIN: usize, const MAX: usize>(pub String);

/// A [`Text`] whose surrounding white space is removed before it is measured.
#[derive(Debug)]
pub struct TrimmedText<const MIN: usize, const MAX: usize>(pub String);

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy)]
pub struct Whole<const MIN: i64, const MAX: i64>(pub i64);

/// A list of `MIN` to `MAX` elements.
#[derive(Debug)]
pub struct List<T, const MIN: usize, const MAX: usize>(pub Vec<T>);

impl<const MIN: usize, const MAX: usize> FromValue for Text<MIN, MAX> {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        value.text(MIN..=MAX).map(Self)
    }
}

impl<const MIN: usize, const MAX: usize> FromText for Text<MIN, MAX> {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        text::check(text, MIN..=MAX)?;
        Ok(Self(text.to_owned()))
    }
}

impl<const MIN: usize, const MAX: usize> PartialSchema for Text<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        text_schema(MIN, MAX, r"^[^\u0000-\u001f\u007f-\u009f]*$")
    }
}

impl<const MIN: usize, const MAX: usize> ToSchema for Text<MIN, MAX> {}

impl<const MIN: usize, const MAX: usize> FromValue for TrimmedText<MIN, MAX> {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        value.trimmed_text(MIN..=MAX).map(Self)
    }
}

impl<const MIN: usize, const MAX: usize> PartialSchema for TrimmedText<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        // At least one character is neither white space nor a control character.
        let pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
        text_schema(MIN, MAX, pattern)
    }
}

impl<const MIN: usize, const MAX: usize> ToSchema for TrimmedText<MIN, MAX> {}

fn text_schema(min: usize, max: usize, pattern: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    Schema::Object(text.min_length(Some(min)).max_length(Some(max)).pattern(Some(pattern)).build()).into()
}

impl<const MIN: i64, const MAX: i64> FromValue for Whole<MIN, MAX> {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        value.integer(MIN..=MAX).map(Self)
    }
}

impl<const MIN: i64, const MAX: i64> FromText for Whole<MIN, MAX> {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        match text.parse() {
            Ok(number) if (MIN..=MAX).contains(&number) && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self(number))
            }
            _ => Err(format!("must be a whole number from {MIN} to {MAX}").into()),
        }
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
        value.array(MIN..=MAX, T::from_value).map(Self)
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
