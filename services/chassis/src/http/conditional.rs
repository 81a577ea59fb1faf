//! Conditional requests, RFC 9110 §13: entity tags, `If-Match`, `If-None-Match`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, PartialSchema};

use crate::http::document::parameter;

/// The entity tag of a version.
pub fn etag(version: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The header `If-None-Match` in the OpenAPI document.
#[derive(Debug)]
pub enum IfNoneMatch {}

impl IntoParams for IfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter("if-none-match", ParameterIn::Header, "the ETag that the client has", String::schema())]
    }
}

/// Whether `If-None-Match` names the tag `current`, with its quotes, by weak comparison.
pub fn none_match_names(headers: &HeaderMap, current: &HeaderValue) -> bool {
    let Ok(current) = current.to_str() else { return false };
    tags(headers, &header::IF_NONE_MATCH).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == current)
}

/// The header `If-Match`: which version the client expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// Reads `If-Match`.
    pub fn read(headers: &HeaderMap) -> Self {
        let tags =
            headers.contains_key(header::IF_MATCH).then(|| tags(headers, &header::IF_MATCH).map(str::to_owned).collect());
        Self(tags)
    }

    /// Whether the request may change `version`: the header is missing, is `*`, or names this version by strong comparison.
    pub fn allows(&self, version: i64) -> bool {
        self.allows_by(version, |opaque| Some(opaque))
    }

    /// [`IfMatch::allows`] for a tag of two versions such as `"7-3"`. Only the part before the hyphen is compared.
    pub fn allows_first_part(&self, version: i64) -> bool {
        self.allows_by(version, |opaque| opaque.split('-').next())
    }

    fn allows_by(&self, version: i64, part: impl Fn(&str) -> Option<&str>) -> bool {
        let Some(tags) = &self.0 else { return true };
        let version = version.to_string();
        tags.iter().any(|tag| {
            let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            tag == "*" || opaque.and_then(&part) == Some(&version)
        })
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter("if-match", ParameterIn::Header, "the ETag that the client has read", String::schema())]
    }
}

/// The tags of a header, which may stand several times. No tag of ours holds a comma.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn if_match_compares_strongly_and_of_two_parts_the_first() {
        let allows = |value| IfMatch::read(&headers(header::IF_MATCH, value)).allows(7);
        let allows_first_part = |value| IfMatch::read(&headers(header::IF_MATCH, value)).allows_first_part(7);
        assert!(IfMatch::read(&HeaderMap::new()).allows(7));
        for value in ["\"7\"", "*", "\"6\", \"7\""] {
            assert!(allows(value) && allows_first_part(value), "{value}");
        }
        for value in ["\"6\"", "W/\"7\"", "7", "", "\"70\"", "\"3-7\""] {
            assert!(!allows(value) && !allows_first_part(value), "{value}");
        }
        assert!(allows_first_part("\"7-3\"") && !allows("\"7-3\""));
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let names = |value| none_match_names(&headers(header::IF_NONE_MATCH, value), &etag(7));
        assert!(names("\"7\"") && names("W/\"7\"") && names("\"1\", \"7\"") && names("*"));
        assert!(!names("\"8\"") && !names("7") && !names(""));
    }
}
