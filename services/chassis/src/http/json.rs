//! JSON responses.

mod writer;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use writer::Writer;

/// Bytes that hold most responses, so that their buffer does not grow.
const CAPACITY: usize = 1024;
/// Room for the headers of most responses, so that their map does not grow.
const HEADERS: usize = 8;

/// The response 200 with this body.
pub fn json(body: &impl Serialize) -> Response {
    respond(write(body))
}

/// A body as JSON.
pub(crate) fn write(body: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CAPACITY);
    body.serialize(Writer(&mut bytes)).expect("a response is JSON, and writing to memory does not fail");
    bytes
}

/// The response 200 with this JSON.
pub(crate) fn respond(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response 201 for what is found at `path` from now on.
pub fn created(path: &str, body: impl IntoResponse) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or_else(|_| HeaderValue::from_static("/"));
    (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response()
}
