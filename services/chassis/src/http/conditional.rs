//! Conditional requests, RFC 9110 §13: entity tags, `If-Match`, `If-None-Match`.

use std::convert::Infallible;
use std::fmt::Write;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, PartialSchema};

use crate::http::document::parameter;
use crate::http::problem::Problem;

/// The entity tag of a version, which may have several numbers.
pub fn etag(version: &[i64]) -> HeaderValue {
    let mut tag = String::with_capacity(48);
    for (number, separator) in version.iter().zip(std::iter::once('"').chain(std::iter::repeat('-'))) {
        tag.push(separator);
        // Writing to memory does not fail.
        let _ = write!(tag, "{number}");
    }
    tag.push('"');
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// What a request's preconditions say about the resource as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request goes on.
    Holds,
    /// `If-None-Match` names what is there: 304 for GET and HEAD, else 412.
    Unchanged,
    /// `If-Match` does not name what is there: 412.
    Fails,
}

/// The preconditions of a request, `If-Match` and `If-None-Match`. The two by date are ignored: no resource has a
/// modification date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl Preconditions {
    /// Reads the headers.
    pub fn read(headers: &HeaderMap) -> Self {
        Self { if_match: Tags::read(headers, &header::IF_MATCH), if_none_match: Tags::read(headers, &header::IF_NONE_MATCH) }
    }

    /// Judges a request for the representation with the tag `current`, with its quotes. `None` for one without a tag.
    pub fn judge_reading(&self, current: Option<&HeaderValue>) -> Verdict {
        let current = current.and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim_matches('"'));
        self.judge(|tag| current == Some(&tag.opaque))
    }

    /// The answer to a GET: 304 or 412 if a precondition says so, else `answer`.
    ///
    /// # Errors
    /// 412.
    pub fn answer(&self, tag: Option<HeaderValue>, answer: impl FnOnce() -> Response) -> Result<Response, Problem> {
        match self.judge_reading(tag.as_ref()) {
            Verdict::Holds => Ok(answer()),
            Verdict::Unchanged => {
                let mut response = StatusCode::NOT_MODIFIED.into_response();
                response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag)));
                Ok(response)
            }
            Verdict::Fails => Err(Problem::precondition_failed()),
        }
    }

    /// Judges a change of `version`.
    ///
    /// # Errors
    /// 412 if a precondition does not hold.
    pub fn allow(&self, version: i64) -> Result<(), Problem> {
        self.allow_by(version, |opaque| Some(opaque))
    }

    /// [`Preconditions::allow`] for tags of two versions such as `"7-3"`. Only the part before the hyphen is compared.
    ///
    /// # Errors
    /// 412 if a precondition does not hold.
    pub fn allow_first_part(&self, version: i64) -> Result<(), Problem> {
        self.allow_by(version, |opaque| opaque.split('-').next())
    }

    fn allow_by(&self, version: i64, part: impl Fn(&str) -> Option<&str>) -> Result<(), Problem> {
        let version = version.to_string();
        match self.judge(|tag| part(&tag.opaque) == Some(&version)) {
            Verdict::Holds => Ok(()),
            Verdict::Unchanged | Verdict::Fails => Err(Problem::precondition_failed()),
        }
    }

    /// RFC 9110 §13.2.2: first `If-Match`, by strong comparison, then `If-None-Match`, by weak comparison.
    fn judge(&self, is_current: impl Fn(&Tag) -> bool) -> Verdict {
        let names = |tags: &Tags, strongly: bool| match tags {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| !(strongly && tag.weak) && is_current(tag)),
        };
        if self.if_match.as_ref().is_some_and(|tags| !names(tags, true)) {
            return Verdict::Fails;
        }
        if self.if_none_match.as_ref().is_some_and(|tags| names(tags, false)) {
            return Verdict::Unchanged;
        }
        Verdict::Holds
    }
}

impl<S: Sync> FromRequestParts<S> for Preconditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers))
    }
}

impl IntoParams for Preconditions {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let if_match = "only if this is the present ETag, or one of these";
        let if_none_match = "only if the present ETag is none of these";
        vec![
            parameter(header::IF_MATCH.as_str(), ParameterIn::Header, if_match, String::schema()),
            parameter(header::IF_NONE_MATCH.as_str(), ParameterIn::Header, if_none_match, String::schema()),
        ]
    }
}

/// The tags of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever is there.
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: String,
}

impl Tags {
    /// Reads a header, which may stand several times. `None` if it is missing. What is no tag names nothing.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).into_iter().peekable();
        values.peek()?;
        let mut tags = Vec::new();
        for value in values {
            let Ok(mut text) = value.to_str() else { continue };
            if text.trim() == "*" {
                return Some(Self::Any);
            }
            while let Some((before, quoted)) = text.split_once('"')
                && let Some((opaque, rest)) = quoted.split_once('"')
            {
                tags.push(Tag { weak: before.ends_with("W/"), opaque: opaque.to_owned() });
                text = rest;
            }
        }
        Some(Self::Listed(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn changes(pairs: &[(HeaderName, &'static str)]) -> bool {
        Preconditions::read(&headers(pairs)).allow_first_part(7).is_ok()
    }

    #[test]
    fn if_match_compares_strongly_and_of_two_parts_the_first() {
        assert!(changes(&[]));
        for value in ["\"7\"", "*", "\"6\", \"7\"", "\"7-3\"", "\"a,b\",\"7\""] {
            assert!(changes(&[(header::IF_MATCH, value)]), "{value}");
        }
        for value in ["\"6\"", "W/\"7\"", "7", "", "\"70\"", "\"3-7\"", "\"a, *\"", "\"7"] {
            assert!(!changes(&[(header::IF_MATCH, value)]), "{value}");
        }
        assert!(Preconditions::read(&headers(&[(header::IF_MATCH, "\"7-3\"")])).allow(7).is_err());
    }

    #[test]
    fn if_none_match_compares_weakly_and_both_must_hold() {
        for value in ["\"7\"", "W/\"7\"", "\"1\", \"7\"", "*", "\"7-1\""] {
            assert!(!changes(&[(header::IF_NONE_MATCH, value)]), "{value}");
            assert!(!changes(&[(header::IF_MATCH, "\"7\""), (header::IF_NONE_MATCH, value)]), "{value}");
        }
        for value in ["\"8\"", "7", "", "\"*\"", "\"a,*,b\""] {
            assert!(changes(&[(header::IF_NONE_MATCH, value)]), "{value}");
        }
        assert!(!changes(&[(header::IF_MATCH, "\"6\""), (header::IF_NONE_MATCH, "\"8\"")]));
    }

    #[test]
    fn a_reading_compares_the_whole_tag_and_what_has_none_is_there() {
        let judge = |name, value, tag: Option<&'static str>| {
            Preconditions::read(&headers(&[(name, value)])).judge_reading(tag.map(HeaderValue::from_static).as_ref())
        };
        let tag = Some("\"7-3\"");
        assert_eq!(judge(header::IF_NONE_MATCH, "W/\"7-3\"", tag), Verdict::Unchanged);
        assert_eq!(judge(header::IF_NONE_MATCH, "\"7\"", tag), Verdict::Holds);
        assert_eq!(judge(header::IF_MATCH, "\"7-3\"", tag), Verdict::Holds);
        assert_eq!(judge(header::IF_MATCH, "\"7\"", tag), Verdict::Fails);
        assert_eq!(judge(header::IF_MATCH, "\"7\"", None), Verdict::Fails);
        assert_eq!(judge(header::IF_MATCH, "*", None), Verdict::Holds);
        assert_eq!(judge(header::IF_NONE_MATCH, "\"7\"", None), Verdict::Holds);
        assert_eq!(judge(header::IF_NONE_MATCH, "*", None), Verdict::Unchanged);
    }
}
