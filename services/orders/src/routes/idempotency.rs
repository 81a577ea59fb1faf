//! The `Idempotency-Key` of a request.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use chassis::auth::Caller;
use chassis::http::document::parameter;
use chassis::http::problem::Problem;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use crate::db::orders::IdempotencyKey;
use crate::domain::NewOrder;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a response that repeats an earlier one.
pub const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
/// The most characters of a key.
const MAX_KEY: usize = 255;

/// All values of the header `Idempotency-Key`.
pub struct KeyHeader(Vec<HeaderValue>);

impl<S: Sync> FromRequestParts<S> for KeyHeader {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get_all(IDEMPOTENCY_KEY).into_iter().cloned().collect()))
    }
}

impl KeyHeader {
    /// The key, if the request has one, and the hash of the order as the service understood it. So a repeat may have its
    /// fields in another order, or other white space. Each subject has keys of its own: no subject and no key contains a
    /// line feed.
    ///
    /// # Errors
    /// 400 for a malformed key.
    pub fn read(&self, caller: &Caller, order: &NewOrder) -> Result<Option<IdempotencyKey>, Problem> {
        let key = match &*self.0 {
            [] => return Ok(None),
            [key] => key.to_str().ok(),
            _ => None,
        };
        let is_key = |key: &&str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        let Some(key) = key.filter(is_key) else {
            let detail = format!("Idempotency-Key must be one key of 1 to {MAX_KEY} visible ASCII characters");
            return Err(Problem::bad_request(detail));
        };
        let understood = serde_json::to_vec(order).expect("strings and numbers are JSON");
        let key = caller.subject().map_or_else(|| key.to_owned(), |subject| format!("{subject}\n{key}"));
        Ok(Some(IdempotencyKey { key, hash: Sha256::digest(understood).to_vec() }))
    }
}

impl IntoParams for KeyHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]+$"));
        let schema = Schema::Object(key.min_length(Some(1)).max_length(Some(MAX_KEY)).build());
        vec![parameter(IDEMPOTENCY_KEY.as_str(), ParameterIn::Header, "chosen by the client, new for each order", schema)]
    }
}
