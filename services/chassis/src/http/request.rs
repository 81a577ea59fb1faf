//! One layer around every request: request id, span, panics, problem bodies, the log line, metrics.
//!
//! tower has a layer for each of these. Each would add an allocation and a future to every request.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use crate::context::{CallContext, REQUEST_ID};
use crate::error::chain;
use crate::http::problem::Problem;
use crate::metrics::Durations;

/// The longest time for one answer. Statements, waits for a connection, bodies and the feed's wait have shorter limits of
/// their own; this one ends a request when a database or a network stops answering altogether.
pub(crate) const DEADLINE: Duration = Duration::from_secs(50);

/// Adds the layer to a router.
#[derive(Debug, Clone, Default)]
pub struct RequestLayer(Arc<Durations>);

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, durations: self.0.clone() }
    }
}

/// A service with the layer around it.
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
        let context = CallContext::read(request.headers());
        let id = context.request_id().clone();
        let seen = Seen {
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
        };
        let span = seen.span(&context);
        let durations = self.durations.clone();
        let answer = context.scope(tokio::time::timeout(DEADLINE, self.inner.call(request)));
        let answer = AssertUnwindSafe(answer).catch_unwind();
        let recorded = span.clone();
        let answer = async move {
            let mut response = match answer.await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(_elapsed)) => Problem::unavailable("the answer was not ready in time").into_response(),
                // The panic hook has logged the panic.
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

/// The parts of a request that its answer, its log line and its metrics need.
struct Seen {
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
}

impl Seen {
    fn span(&self, context: &CallContext) -> Span {
        tracing::info_span!(
            "request",
            method = self.method.as_str(),
            // The template: a path may contain personal data.
            route = self.route.as_ref().map_or("", MatchedPath::as_str),
            request.id = context.request_id().to_str().unwrap_or_default(),
            trace.id = context.trace_id(),
        )
    }

    /// Writes the problem body of every error, and logs the cause of a 5xx.
    fn finish(&self, response: &mut Response) {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        // axum's own errors, such as 405, have a status and no problem.
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

/// Logs the cause of a 5xx.
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
