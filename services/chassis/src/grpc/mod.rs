//! The frame around every gRPC call that a service answers: ids, span, panics, statuses, the log line, metrics.
//! [`crate::http::request`] does the same for HTTP.

mod calls;
pub mod health;
pub(crate) mod incoming;
mod statuses;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use futures_util::FutureExt;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument;

use self::calls::Calls;
use self::statuses::Statuses;
use crate::auth::{Admission, Auth, Caller, Needs};
use crate::context::CallContext;
use crate::http::limits::Limits;
use crate::http::problem::Problem;
use crate::http::request::log_failure;
use crate::http::serve::{FAREWELL, GRACE};
use crate::metrics::CALL_DURATION;
use crate::tls::{Listener, Protocol, encrypt};
use crate::traces::ServerSpan;

/// A method of a service, as `package.Service/Method`, and what it asks of its callers.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What its callers must have.
    pub needs: Needs,
}

/// Answers a call of `method` that has this `metadata`, by `work` for a caller whom `auth` admits.
///
/// # Errors
/// The gRPC status for the problem: <https://grpc.io/docs/guides/status-codes/>.
pub async fn answer<T, E: Into<Problem>, F: Future<Output = Result<T, E>>>(
    auth: &Auth,
    Method { name: method, needs }: Method,
    metadata: MetadataMap,
    work: impl FnOnce(Caller) -> Pin<Box<F>>,
) -> Result<Response<T>, Status> {
    let started = Instant::now();
    let headers = metadata.into_headers();
    let mut context = CallContext::read(&headers);
    let id = context.request_id().clone();
    let traced = ServerSpan::grpc(&mut context, method);
    let span = tracing::info_span!(
        "call",
        method,
        request.id = id.to_str().unwrap_or_default(),
        trace.id = context.trace_id(),
        span.id = traced.as_ref().map(|traced| tracing::field::display(traced.id())),
    );
    let work = async move {
        let _under_way = calls::begin(method);
        let (caller, _place) = (admit(auth, &headers, needs).await?, calls::place().await);
        work(caller).await.map_err(E::into)
    };
    let work = AssertUnwindSafe(context.scope(work)).catch_unwind();
    let answered = async move {
        let problem: Problem = match work.await {
            Ok(Ok(message)) => return Ok(Response::new(message)),
            Ok(Err(problem)) => problem,
            // The panic hook has logged the panic.
            Err(_panic) => Problem::internal(),
        };
        log_failure(&problem);
        Err(Status::new(code(problem.status()), problem.detail()))
    };
    let mut answer = ServerSpan::around(traced.as_ref(), answered.instrument(span)).await;
    let metadata = match &mut answer {
        Ok(response) => response.metadata_mut(),
        Err(status) => status.metadata_mut(),
    };
    if let Ok(id) = AsciiMetadataValue::try_from(id.as_bytes()) {
        metadata.insert("x-request-id", id);
    }
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    if let Some(traced) = traced {
        traced.returned(code);
    }
    let labels = [("rpc_method", method.to_owned()), ("rpc_response_status_code", format!("{code:?}"))];
    metrics::histogram!(CALL_DURATION, &labels).record(started.elapsed());
    answer
}

/// The caller of a method that `needs` this. An id in the message is the method's own to compare.
async fn admit(auth: &Auth, headers: &HeaderMap, needs: Needs) -> Result<Caller, Problem> {
    let judged = match auth.admit(headers, || Some(needs), || None) {
        Admission::Judged(judged) => judged,
        Admission::Unknown(pending) => pending.judge().await,
    };
    judged.map(Option::unwrap_or_default)
}

/// Refuses the callers of a whole service that `auth` does not admit, before their messages are read. It does not wait for
/// keys that are unknown.
pub fn guard<S>(service: S, auth: Auth) -> InterceptedService<S, impl Interceptor + Clone> {
    InterceptedService::new(service, move |request: Request<()>| {
        let headers = request.metadata().clone().into_headers();
        let judged = match auth.admit(&headers, || Some(Needs::Token), || None) {
            Admission::Judged(judged) => judged,
            Admission::Unknown(pending) => pending.judge_now(),
        };
        judged.map(|_| request).map_err(|problem| Status::new(code(problem.status()), problem.detail()))
    })
}

/// The gRPC code that corresponds to an HTTP status.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::FailedPrecondition,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// [`serve_within`] the default limits.
///
/// # Errors
/// If the server fails.
pub async fn serve(
    listener: impl Into<Listener>,
    routes: Routes,
    stop: impl Future<Output = ()> + Clone,
) -> Result<(), String> {
    serve_within(&Limits::default(), listener, routes, stop).await
}

/// Serves `routes` until `stop` resolves. Then it accepts no more connections, and waits for the calls in flight. Streams
/// end with the server: a client could keep them open for ever.
///
/// # Errors
/// If the server fails.
pub async fn serve_within(
    limits: &Limits,
    listener: impl Into<Listener>,
    routes: Routes,
    stop: impl Future<Output = ()> + Clone,
) -> Result<(), String> {
    let Listener { tcp, tls } = listener.into();
    let incoming = encrypt(incoming::incoming(tcp, limits), tls, Protocol::Http2, limits.head_timeout);
    let calls = Calls::default();
    let server = Server::builder()
        .max_concurrent_streams(limits.max_grpc_streams)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .layer(Statuses(calls.clone()))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.clone());
    let too_long = async {
        stop.await;
        if tokio::time::timeout(GRACE, calls.ended()).await.is_err() {
            tracing::warn!("stopped with calls unanswered after {GRACE:?}");
        }
        // The last answers are on their way.
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server => served.map_err(|error| format!("gRPC cannot be served any more: {error}")),
        () = too_long => Ok(()),
    }
}
