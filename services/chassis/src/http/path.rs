//! The id in a path.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use uuid::Uuid;

use crate::http::document::{self, parameter};
use crate::http::problem::Problem;

/// Extracts the id of the path. An id that is not a UUID names nothing: 404.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub Uuid);

impl<S: Sync + Send> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let id = parameters.ok().and_then(|parameters| parameters.iter().next().and_then(|(_, text)| parse_id(text)));
        id.map(Self).ok_or_else(|| Problem::not_found("the id in the path is not a UUID"))
    }
}

impl IntoParams for Id {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter("id", ParameterIn::Path, "a UUID", document::uuid())]
    }
}

/// Reads a UUID in its usual form with hyphens, in either case.
pub fn parse_id(text: &str) -> Option<Uuid> {
    if text.len() == uuid::fmt::Hyphenated::LENGTH { Uuid::try_parse(text).ok() } else { None }
}
