//! The frame around every gRPC call that a service answers: ids, span, panics, statuses, the log line, metrics.
//! [`crate::http::request`] does the same for HTTP.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Response, Status};
use tracing::Instrument;

use crate::context::CallContext;
use crate::http::problem::Problem;
use crate::http::request::{DEADLINE, log_failure};
use crate::http::serve::GRACE;
use crate::metrics::CALL_DURATION;

/// Answers a call of `method` (`package.Service/Method`) that has this `metadata`.
///
/// # Errors
/// The gRPC status for the problem: <https://grpc.io/docs/guides/status-codes/>.
pub async fn answer<T, E: Into<Problem>>(
    method: &'static str,
    metadata: MetadataMap,
    work: Pin<Box<impl Future<Output = Result<T, E>>>>,
) -> Result<Response<T>, Status> {
    let started = Instant::now();
    let context = CallContext::read(&metadata.into_headers());
    let id = context.request_id().clone();
    let span =
        tracing::info_span!("call", method, request.id = id.to_str().unwrap_or_default(), trace.id = context.trace_id(),);
    let work = AssertUnwindSafe(context.scope(work)).catch_unwind();
    let answered = async move {
        let problem: Problem = match work.await {
            Ok(Ok(message)) => return Ok(Response::new(message)),
            Ok(Err(error)) => error.into(),
            // The panic hook has logged the panic.
            Err(_panic) => Problem::internal(),
        };
        log_failure(&problem);
        Err(Status::new(code(problem.status()), problem.detail()))
    };
    let mut answer = answered.instrument(span).await;
    if let Ok(id) = AsciiMetadataValue::try_from(id.as_bytes()) {
        let metadata = match &mut answer {
            Ok(response) => response.metadata_mut(),
            Err(status) => status.metadata_mut(),
        };
        metadata.insert("x-request-id", id);
    }
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    let labels = [("rpc_method", method.to_owned()), ("rpc_response_status_code", format!("{code:?}"))];
    metrics::histogram!(CALL_DURATION, &labels).record(started.elapsed());
    answer
}

/// The gRPC code that corresponds to an HTTP status.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::FailedPrecondition,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// Serves `routes` until `stop` resolves. Then it accepts no more connections and waits up to 30 seconds for the calls in
/// flight.
///
/// # Errors
/// If the server fails.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    stop: impl Future<Output = ()> + Clone,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .timeout(DEADLINE)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.clone());
    let too_long = async {
        stop.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        () = too_long => {
            tracing::warn!("stopped with calls unanswered after {GRACE:?}");
            Ok(())
        }
    }
}
