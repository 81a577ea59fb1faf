//! Query parameters, read by name; what is left over, stands twice or does not fit is 400.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

use crate::http::path::parse_id;
use crate::http::problem::Problem;
use crate::http::text;

/// The query parameters that have not been read yet. Read them all, then call [`Query::finish`].
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        Ok(Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()))
    }
}

impl Query {
    /// Reads every value of `name`.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        self.0.extract_if(.., |(parameter, _)| parameter == name).map(|(_, value)| value).collect()
    }

    /// Reads `name` as `read` understands it; `read` says what would be right.
    ///
    /// # Errors
    /// 400 if it stands twice or is not understood.
    pub fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, Cow<'static, str>>,
    ) -> Result<Option<T>, Problem> {
        match self.all(name).as_slice() {
            [] => Ok(None),
            [value] => read(value).map(Some).map_err(|expected| reject(name, &expected)),
            _ => Err(reject(name, "may be given once only")),
        }
    }

    /// Reads a whole number in `range`.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Problem> {
        self.optional(name, |value| match value.parse() {
            Ok(number) if range.contains(&number) && value.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => Err(format!("must be a whole number from {} to {}", range.start(), range.end()).into()),
        })
    }

    /// Reads a UUID.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn id(&mut self, name: &str) -> Result<Option<Uuid>, Problem> {
        self.optional(name, |value| parse_id(value).ok_or(Cow::Borrowed("must be a UUID")))
    }

    /// Reads a text of `length` characters.
    ///
    /// # Errors
    /// 400 if it is longer or holds control characters.
    pub fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Result<Option<String>, Problem> {
        self.optional(name, |value| text::check(value, length).map(|()| value.to_owned()).map_err(Cow::Owned))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 400 if a parameter has not been read: a misspelt filter must not look like one that matched everything.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(reject(name, "is not known here")),
        }
    }
}

/// 400 for the parameter `name`.
pub fn reject(name: &str, reason: &str) -> Problem {
    // A name may be anything a client sent.
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::bad_request(format!("the query parameter `{name}` {reason}"))
}
