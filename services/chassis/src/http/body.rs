//! JSON bodies, read field by field so that one answer reports every fault with a pointer to its place.
//!
//! serde's derive does less: it stops at the first fault, has no pointers, and calls a number that is too large malformed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::error::Error;
use std::{fmt, io, iter};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::http::path::parse_id;
use crate::http::problem::{FieldError, Problem};

/// The largest body read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// The most faults that one answer reports.
const MAX_ERRORS: usize = 50;

/// A type that can be read from a JSON object: see [`read_fields!`](crate::read_fields).
pub trait FromObject: Sized {
    /// Reads the fields. A fault is recorded in the object and yields `None`.
    fn from_object(object: &mut Object<'_>) -> Option<Self>;
}

/// A type that can be read from a JSON value.
pub trait FromValue: Sized {
    /// Reads the value. A fault is recorded at its place in the body and yields `None`.
    fn from_value(value: &Value<'_>) -> Option<Self>;
}

/// A field of an object: it may be left out if its type is an `Option`, but it is never null.
pub trait Field: Sized {
    /// Reads the field. A fault is recorded at its place in the body and yields `None`.
    fn read(object: &mut Object<'_>, name: &'static str) -> Option<Self>;
}

/// Implements [`FromObject`] for a struct. It reads every field before it gives up, so that all faults are reported.
#[macro_export]
macro_rules! read_fields {
    ($object:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::http::body::FromObject for $object {
            fn from_object(object: &mut $crate::http::body::Object<'_>) -> Option<Self> {
                $(let $field = $crate::http::body::Field::read(object, stringify!($field));)+
                Some(Self { $($field: $field?),+ })
            }
        }
    };
}

/// Extracts a JSON body: 415, 413, 400 or 422 if it cannot be read.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// Extracts a JSON body that may be left out altogether.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<S: Sync, T: FromObject> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_media_type(&request)?;
        parse(&read(request.into_body()).await?).map(Self)
    }
}

impl<S: Sync, T: FromObject + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let media_type = check_media_type(&request);
        let body = read(request.into_body()).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        media_type?;
        parse(&body).map(Self)
    }
}

/// Checks that a body is declared as JSON.
///
/// # Errors
/// 415.
pub(crate) fn check_media_type(request: &Request) -> Result<(), Problem> {
    let patch = request.method() == Method::PATCH;
    let media_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .unwrap_or_default();
    if media_type.eq_ignore_ascii_case("application/json")
        || (patch && media_type.eq_ignore_ascii_case("application/merge-patch+json"))
    {
        return Ok(());
    }
    let problem =
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be JSON, with Content-Type: application/json");
    Err(if patch {
        let accepted = HeaderValue::from_static("application/merge-patch+json, application/json");
        problem.header(header::HeaderName::from_static("accept-patch"), accepted)
    } else {
        problem
    })
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 64 KiB"))
        }
        Err(error) if is_late(&*error) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time: send the request again"))
        }
        Err(_) => Err(Problem::bad_request("the connection ended before the body did")),
    }
}

/// Whether the time to send the body was over: [`crate::http::stream`] measures it.
fn is_late(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |&error| error.source())
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut))
}

fn parse<T: FromObject>(body: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let errors = Errors::default();
    let value = Value { raw: text.trim_matches([' ', '\t', '\n', '\r']), place: Place::Body, errors: &errors };
    match (T::from_value(&value), errors.0.into_inner()) {
        // An object is read only once `serde_json` has read all of its text, which is well-formed then.
        (Some(value), errors) if errors.is_empty() => Ok(value),
        (_, errors) => Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(IgnoredAny) => Problem::invalid(errors),
            Err(error) => Problem::bad_request(format!("the body is not well-formed JSON: {error}")),
        }),
    }
}

#[derive(Debug, Default)]
struct Errors(RefCell<Vec<FieldError>>);

/// The place of a value in the body. It becomes text only if there is a fault.
#[derive(Debug)]
enum Place<'a> {
    /// The whole body.
    Body,
    Field(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

/// An RFC 6901 JSON pointer.
impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Field(of, name) => write!(formatter, "{of}/{}", name.replace('~', "~0").replace('/', "~1")),
            Self::Element(of, index) => write!(formatter, "{of}/{index}"),
        }
    }
}

/// One JSON value and its place in the body.
#[derive(Debug)]
pub struct Value<'a> {
    pub(super) raw: &'a str,
    place: Place<'a>,
    errors: &'a Errors,
}

impl<'a> Value<'a> {
    /// Records a fault of this value.
    pub fn reject<T>(&self, detail: impl Into<String>) -> Option<T> {
        let mut errors = self.errors.0.borrow_mut();
        if errors.len() < MAX_ERRORS {
            errors.push(FieldError { pointer: self.place.to_string(), detail: detail.into() });
        }
        None
    }

    /// The text of a string.
    pub fn string(&self) -> Option<Cow<'a, str>> {
        let Some(quoted) = self.raw.strip_prefix('"') else {
            return self.reject("must be a string");
        };
        // The value of a field or an element: `serde_json` has found its end, and no control character in it.
        if let Some(text) = quoted.strip_suffix('"').filter(|text| !text.contains('\\')) {
            return Some(Cow::Borrowed(text));
        }
        match serde_json::from_str(self.raw) {
            Ok(Text(text)) => Some(text),
            Err(_) => self.reject("must be a string of valid Unicode"),
        }
    }

    /// An element of this one.
    pub(super) fn element<'of>(&'of self, index: usize, raw: &'of str) -> Value<'of> {
        Value { raw, place: Place::Element(&self.place, index), errors: self.errors }
    }
}

/// The fields of a JSON object that have not been read yet.
#[derive(Debug)]
pub struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a str)>,
    place: &'a Place<'a>,
    errors: &'a Errors,
}

impl<T: FromValue> Field for T {
    fn read(object: &mut Object<'_>, name: &'static str) -> Option<Self> {
        match object.take(name) {
            Some(value) => T::from_value(&value),
            None => object.value(name, "null").reject("is missing"),
        }
    }
}

impl<T: FromValue> Field for Option<T> {
    fn read(object: &mut Object<'_>, name: &'static str) -> Option<Self> {
        match object.take(name) {
            Some(value) => T::from_value(&value).map(Some),
            None => Some(None),
        }
    }
}

impl<T: FromObject> FromValue for T {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let Ok(Fields(fields)) = serde_json::from_str(value.raw) else {
            let named = value.raw.starts_with('{');
            return value.reject(if named { "has a field whose name is not valid Unicode" } else { "must be an object" });
        };
        let mut object = Object { fields, place: &value.place, errors: value.errors };
        let read = T::from_object(&mut object);
        for (name, raw) in &object.fields {
            object.value(name, raw).reject::<()>("is unknown, or stands twice");
        }
        read
    }
}

impl FromValue for Uuid {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let text = value.string()?;
        parse_id(&text).or_else(|| value.reject("must be a UUID such as 0198c0de-0000-7000-8000-000000000000"))
    }
}

impl<'a> Object<'a> {
    fn take(&mut self, name: &'static str) -> Option<Value<'a>> {
        let index = self.fields.iter().position(|(field, _)| field == name)?;
        let (_, raw) = self.fields.remove(index);
        Some(Value { raw, place: Place::Field(self.place, name), errors: self.errors })
    }

    fn value<'of>(&'of self, name: &'of str, raw: &'of str) -> Value<'of> {
        Value { raw, place: Place::Field(self.place, name), errors: self.errors }
    }
}

/// The fields of an object in their order. A name that stands twice is kept twice.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), raw)) = map.next_entry::<_, &RawValue>()? {
                    fields.push((name, raw.get()));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A string, borrowed if it holds no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
