//! Query parameters, read by name. A parameter that is unknown, stands twice or has a bad value is answered 400.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::http::path::parse_id;
use crate::http::problem::Problem;

/// The query parameters that have not been read yet. Read them all, then call [`Query::finish`].
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

/// A type that can be read from the text of a query parameter.
pub trait FromText: Sized {
    /// Reads the text.
    ///
    /// # Errors
    /// What the parameter must be, to follow its name.
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>>;
}

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

    /// Reads the parameter `name`, which may be left out.
    ///
    /// # Errors
    /// 400 if it stands twice or its value is bad.
    pub fn read<T: FromText>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        self.optional(name, T::from_text)
    }

    /// [`Query::read`] with a function that reads the text, or says what the parameter must be.
    ///
    /// # Errors
    /// 400 if it stands twice or its value is bad.
    pub fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, Cow<'static, str>>,
    ) -> Result<Option<T>, Problem> {
        match self.all(name).as_slice() {
            [] => Ok(None),
            [value] => read(value).map(Some).map_err(|expected| reject(name, &expected)),
            _ => Err(reject(name, "stands twice")),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 400 if a parameter has not been read: a list must not ignore a misspelt filter.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(reject(name, "is unknown")),
        }
    }
}

impl FromText for Uuid {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        parse_id(text).ok_or(Cow::Borrowed("must be a UUID"))
    }
}

impl FromText for DateTime<Utc> {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        let time = DateTime::parse_from_rfc3339(text);
        time.map(|time| time.to_utc())
            .map_err(|_| "must be a time such as 2026-01-31T12:00:00Z (a `+` is written %2B)".into())
    }
}

/// 400 for the parameter `name`.
pub fn reject(name: &str, reason: &str) -> Problem {
    // The name comes from the client: its control characters are removed, and it is cut.
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::bad_request(format!("the query parameter `{name}` {reason}"))
}
