//! Errors as clients see them: RFC 9457 problem details.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// What is wrong with one field of a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's place in the body, as an RFC 6901 JSON pointer.
    #[schema(example = "/items/0/quantity")]
    pub pointer: String,
    /// What the field must be.
    pub detail: String,
}

/// The body of every error, `application/problem+json`, as documented by OpenAPI.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:problem-type:<name>`, or `about:blank` if the status says enough.
    #[schema(value_type = String)]
    r#type: Cow<'a, str>,
    /// The kind of problem, in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What happened to this request, and what to do.
    #[schema(value_type = String)]
    detail: &'a str,
    /// The path of the request.
    instance: &'a str,
    /// The faulty fields of the request's body.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(value_type = Vec<FieldError>, required = false)]
    errors: &'a [FieldError],
}

/// The cause of a 5xx response. The log gets it, the client does not.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// An error for the client. [`crate::http::request`] knows the request: it writes the body and logs the cause.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.detail)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, Default)]
struct Parts {
    status: StatusCode,
    name: Option<&'static str>,
    title: Option<&'static str>,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

impl Problem {
    /// A problem without a type of its own: its status says enough.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts { status, detail: detail.into(), ..Parts::default() }))
    }

    /// Sets the type `urn:problem-type:<name>` and its title.
    #[must_use]
    pub fn typed(mut self, name: &'static str, title: &'static str) -> Self {
        self.0.name = Some(name);
        self.0.title = Some(title);
        self
    }

    /// Replaces the detail.
    #[must_use]
    pub fn detailed(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    /// 400: the request is not understood.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: what the path names does not exist.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: the state does not allow it.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 412: a precondition does not hold.
    pub fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "If-Match or If-None-Match does not hold: read the resource again and send its present ETag",
        )
    }

    /// 422: the body is well-formed, but these fields are invalid.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the body is invalid: `errors` lists the fields");
        problem.0.errors = errors;
        problem
    }

    /// 500: a bug.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the service failed: its log has the cause under this request id")
    }

    /// 503: a retry after a second may succeed.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.0.cause.as_ref()
    }

    /// Writes the body and its headers into `response`, for the request to `path`.
    pub(crate) fn render(&self, path: &str, response: &mut Response) {
        let parts = &*self.0;
        let body = ProblemBody {
            r#type: parts.name.map_or(Cow::Borrowed("about:blank"), |name| format!("urn:problem-type:{name}").into()),
            title: parts.title.or(parts.status.canonical_reason()).unwrap_or("Error"),
            status: parts.status.as_u16(),
            detail: &parts.detail,
            instance: path,
            errors: &parts.errors,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &parts.headers {
            headers.insert(name, value.clone());
        }
        *response.body_mut() = body.into();
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
