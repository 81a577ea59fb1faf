//! One layer around every request: request id, span, panics, problem bodies, the log line, metrics.
//!
//! tower has a layer for each of these. Each would add an allocation and a future to every request.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use metrics::Gauge;
use opentelemetry::trace::FutureExt as _;
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use crate::auth::{Admission, Auth, Caller};
use crate::context::{CallContext, REQUEST_ID};
use crate::error::chain;
use crate::http::meaning::{Instead, Routes, id_in_path};
use crate::http::problem::Problem;
use crate::http::rate::TooMany;
use crate::http::work::Work;
use crate::metrics::{active_requests, record_duration};
use crate::throttle;
use crate::traces::ServerSpan;

/// The longest time for one answer. Statements, waits for a connection, bodies and the feed's wait have shorter limits of
/// their own; this one ends a request when a database or a network stops answering altogether.
pub(crate) const DEADLINE: Duration = Duration::from_secs(50);

const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");

/// Adds the layer to a router.
#[derive(Clone)]
pub(crate) struct RequestLayer(Arc<Shared>);

/// What all requests share.
struct Shared {
    active: Gauge,
    routes: Routes,
    auth: Auth,
}

/// A request under way, which counts as one until this is dropped.
struct Active(Arc<Shared>);

impl Active {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.active.increment(1.0);
        Self(shared.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.decrement(1.0);
    }
}

impl RequestLayer {
    /// For these routes, and the callers that `auth` admits.
    pub(crate) fn new(routes: Routes, auth: Auth) -> Self {
        Self(Arc::new(Shared { active: active_requests(), routes, auth }))
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, shared: self.0.clone() }
    }
}

/// A service with the layer around it.
#[derive(Clone)]
pub(crate) struct RequestService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request> for RequestService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let connection = request.extensions_mut().remove::<Arc<Work>>();
        let mut timer = connection.as_deref().map(Work::take_timer).unwrap_or_default();
        let mut context = CallContext::read(request.headers());
        let id = context.request_id().clone();
        let seen = Seen {
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
        };
        let traced = ServerSpan::http(&mut context, &seen.method, seen.route.as_ref().map(MatchedPath::as_str));
        let (span, traced_by) = (seen.span(&context, traced.as_ref()), traced.as_ref().map(ServerSpan::context));
        let active = Active::begin(&self.shared);
        let Shared { routes, auth, .. } = &*self.shared;
        let admission = match request.extensions().get::<TooMany>() {
            Some(refused) => Admission::Judged(Err(refused.problem())),
            None => auth.admit(request.headers(), || routes.needs(&request), || id_in_path(&request)),
        };
        let answer = match admission {
            Admission::Judged(judged) => Either::Left(answer(routes, &mut self.inner, judged, request)),
            Admission::Unknown(pending) => {
                let (shared, mut inner) = (self.shared.clone(), self.inner.clone());
                let answer = async move {
                    let judged = pending.judge().await;
                    answer(&shared.routes, &mut inner, judged, request).await
                };
                Either::Right(answer.boxed())
            }
        };
        let answer = context.scope(async move {
            let answer = timer.until(started + DEADLINE, answer).await;
            if let Some(connection) = connection {
                connection.keep_timer(timer);
            }
            answer
        });
        let answer = AssertUnwindSafe(answer).catch_unwind();
        let answer = Answering { seen, id, started, active, traced }.finish(answer).instrument(span);
        match traced_by {
            None => Box::pin(answer),
            Some(context) => Box::pin(answer.with_context(context)),
        }
    }
}

/// A request that is being answered.
struct Answering {
    seen: Seen,
    id: HeaderValue,
    started: Instant,
    active: Active,
    traced: Option<ServerSpan>,
}

impl Answering {
    /// Completes the answer, and says how long it took.
    async fn finish(self, answer: impl Future<Output = Outcome>) -> Result<Response, Infallible> {
        let mut response = response_of(answer.await);
        let Self { seen, id, started, active, traced } = self;
        seen.finish(&mut response);
        response.headers_mut().insert(REQUEST_ID, id);
        // A browser must not take an answer for something else than it says it is.
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
        let route = seen.route.as_ref().map_or("", MatchedPath::as_str);
        let duration = started.elapsed();
        drop(active);
        if let Some(traced) = traced {
            traced.answered(response.status());
        }
        record_duration(seen.method, route, response.status(), duration);
        tracing::debug!(status = response.status().as_u16(), duration_ms = duration.as_secs_f64() * 1e3, "answered");
        Ok(response)
    }
}

/// What came of a handler, unless it panicked or took too long.
type Outcome = std::thread::Result<Option<Result<Response, Infallible>>>;

/// The response, also of a handler that took too long, or panicked.
fn response_of(outcome: Outcome) -> Response {
    match outcome {
        Ok(Some(Ok(response))) => response,
        Ok(None) => Problem::unavailable("the answer was not ready in time").into_response(),
        // The panic hook has logged the panic.
        Err(_panic) => Problem::internal().into_response(),
    }
}

/// Answers a request whose caller was judged.
fn answer<S>(
    routes: &Routes,
    inner: &mut S,
    judged: Result<Option<Caller>, Problem>,
    mut request: Request,
) -> Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    let refused = match judged {
        Ok(caller) => {
            // With AUTH=off there is none.
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            routes.refuse(&request)
        }
        Err(problem) => Some(Instead::Before(problem)),
    };
    match refused {
        None => Either::Left(inner.call(request)),
        Some(Instead::Before(problem)) => Either::Right(ready(Ok(problem.into_response())).boxed()),
        Some(Instead::AfterSuccess(problem)) => {
            let refuse = |answer: Response| if answer.status().is_success() { problem.into_response() } else { answer };
            Either::Right(inner.call(request).map(|answer| answer.map(refuse)).boxed())
        }
    }
}

/// The parts of a request that its answer, its log line and its metrics need.
struct Seen {
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
}

impl Seen {
    fn span(&self, context: &CallContext, traced: Option<&ServerSpan>) -> Span {
        tracing::info_span!(
            "request",
            method = self.method.as_str(),
            // The template: a path may contain personal data.
            route = self.route.as_ref().map_or("", MatchedPath::as_str),
            request.id = context.request_id().to_str().unwrap_or_default(),
            trace.id = context.trace_id(),
            span.id = traced.map(|traced| tracing::field::display(traced.id())),
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

/// Logs the cause of a 5xx, the same one once a second.
pub(crate) fn log_failure(problem: &Problem) {
    let status = problem.status();
    if status.is_server_error() {
        let error = problem.cause().map_or_else(|| problem.detail().to_owned(), |cause| chain(&**cause));
        let Some(omitted) = throttle::line(&error) else { return };
        match status {
            StatusCode::SERVICE_UNAVAILABLE => tracing::warn!(status = status.as_u16(), error, omitted, "request failed"),
            _ => tracing::error!(status = status.as_u16(), error, omitted, "request failed"),
        }
    }
}
