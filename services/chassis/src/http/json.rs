//! JSON answers.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Holds most answers, so that they are written without growing, in bytes.
const CAPACITY: usize = 1024;

/// The answer 200 with this body.
pub fn json(body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(CAPACITY);
    serde_json::to_writer(&mut bytes, body).expect("what services answer is JSON, and memory takes it");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
}
