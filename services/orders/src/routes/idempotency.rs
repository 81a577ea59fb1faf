//! The `Idempotency-Key` of a request.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chassis::http::problem::Problem;
use sha2::{Digest, Sha256};

use crate::db::orders::IdempotencyKey;
use crate::domain::NewOrder;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that repeats an earlier one.
pub const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
/// The longest key, in characters.
const MAX_KEY: usize = 255;

/// Reads the key, if there is one, and what it stands for: the order as it was understood, whatever white space or order
/// of fields it came in.
///
/// # Errors
/// 400 for a key that is none.
pub fn read(headers: &HeaderMap, order: &NewOrder) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| {
        (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) && values.next().is_none()
    });
    let Some(key) = key else {
        return Err(Problem::bad_request("Idempotency-Key must be one key of 1 to 255 visible ASCII characters"));
    };
    let understood = serde_json::to_vec(order).expect("strings and numbers are JSON");
    Ok(Some(IdempotencyKey { key: key.to_owned(), hash: Sha256::digest(understood).to_vec() }))
}
