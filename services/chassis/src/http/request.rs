//! What happens around every request, in one layer: request id, span, panics, problem bodies, the log line, metrics.
//!
//! One layer and not five: each of tower's adds an allocation and a future to every request.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::{Layer, Service};
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::http::problem::Problem;
use crate::metrics::Durations;
use crate::remote::CallContext;

/// Carries the request's id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The last resort against a database or a network that says nothing any more: statements, waits for a connection, bodies
/// and the feed's waiting have limits of their own, and together they stay below it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(50);
/// The longest id taken over from a client, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The layer.
#[derive(Debug, Clone, Default)]
pub struct RequestLayer(Arc<Durations>);

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, durations: self.0.clone() }
    }
}

/// The layer around a service.
#[derive(Debug, Clone)]
pub struct RequestService<S> {
    inner: S,
    durations: Arc<Durations>,
}

impl<S> Service<Request> for RequestService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let started = Instant::now();
        let id = request_id(request.headers());
        let seen = Seen {
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
        };
        let span = seen.span(&id, request.headers());
        let durations = self.durations.clone();
        let traceparent = request.headers().get(TRACEPARENT).filter(|value| trace_id(value).is_some()).cloned();
        let context = CallContext::new(id.clone(), traceparent);
        let answer = context.scope(tokio::time::timeout(DEADLINE, self.inner.call(request)));
        let answer = AssertUnwindSafe(answer).catch_unwind();
        let recorded = span.clone();
        let answer = async move {
            let mut response = match answer.await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(_elapsed)) => Problem::unavailable("the answer was not ready in time").into_response(),
                // The panic hook has written where and why.
                Err(_panic) => Problem::internal().into_response(),
            };
            seen.finish(&mut response);
            response.headers_mut().insert(REQUEST_ID, id);
            let route = seen.route.as_ref().map_or("", MatchedPath::as_str);
            let duration = started.elapsed();
            durations.record(seen.method.clone(), route, response.status(), duration);
            tracing::debug!(status = response.status().as_u16(), duration_ms = duration.as_secs_f64() * 1e3, "answered");
            Ok(response)
        };
        Box::pin(answer.instrument(recorded))
    }
}

/// What is remembered of a request while it is answered.
struct Seen {
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
}

impl Seen {
    fn span(&self, id: &HeaderValue, headers: &HeaderMap) -> Span {
        tracing::info_span!(
            "request",
            method = self.method.as_str(),
            // Of the template, not the path: a path may hold what a log must not.
            route = self.route.as_ref().map_or("", MatchedPath::as_str),
            request.id = id.to_str().unwrap_or_default(),
            trace.id = headers.get(TRACEPARENT).and_then(trace_id),
        )
    }

    /// Gives every error its problem body, and logs the cause of those that somebody here must act on.
    fn finish(&self, response: &mut Response) {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        // axum's own answers, such as 405, have a status and no problem.
        let problem = response
            .extensions_mut()
            .remove::<Problem>()
            .unwrap_or_else(|| Problem::new(status, self.default_detail(status)));
        problem.render(self.uri.path(), response);
        log_failure(&problem);
    }

    fn default_detail(&self, status: StatusCode) -> String {
        match status {
            StatusCode::NOT_FOUND => "there is nothing at this path; /docs lists what there is".to_owned(),
            StatusCode::METHOD_NOT_ALLOWED => format!("{} is not a method of this path; see the Allow header", self.method),
            _ => "the request cannot be answered as it is".to_owned(),
        }
    }
}

/// Logs the cause of a problem that is not the caller's to solve.
pub(crate) fn log_failure(problem: &Problem) {
    let status = problem.status();
    if status.is_server_error() {
        let error = problem.cause().map_or_else(|| problem.detail().to_owned(), |cause| chain(&**cause));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => tracing::warn!(status = status.as_u16(), error, "request failed"),
            _ => tracing::error!(status = status.as_u16(), error, "request failed"),
        }
    }
}

/// An error and its sources, one level after the other.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let level = error.to_string();
        // Transparent errors repeat their source.
        if !text.ends_with(&level) {
            text.push_str(": ");
            text.push_str(&level);
        }
        source = error.source();
    }
    text
}

/// The id the client sent, if it is sane, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    match headers.get(REQUEST_ID) {
        Some(id) if (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(sane) => id.clone(),
        _ => {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            let text = Uuid::now_v7().as_hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        }
    }
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
pub(crate) fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    let text = traceparent.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let sane = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && set(trace)
        && hex(parent, 16)
        && set(parent)
        && hex(flags, 2)
        // Only later versions may say more.
        && (version != "00" || parts.next().is_none());
    sane.then_some(trace)
}

/// Tells the client to close the connection after this answer.
pub(crate) fn close_after(response: &mut Response) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
