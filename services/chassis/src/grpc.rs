//! What happens around every gRPC call that a service answers, as [`crate::http::request`] has it for HTTP: ids, span, panics,
//! statuses, the log line, metrics.

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

use crate::http::problem::Problem;
use crate::http::request::{DEADLINE, TRACEPARENT, log_failure, request_id, trace_id};
use crate::http::serve::GRACE;
use crate::metrics::CALL_DURATION;
use crate::remote::CallContext;

/// Answers a call of `method` (`package.Service/Method`) that came with `metadata`.
///
/// # Errors
/// What the problem means in gRPC: <https://grpc.io/docs/guides/status-codes/>.
pub async fn answer<T, E: Into<Problem>>(
    method: &'static str,
    metadata: MetadataMap,
    work: Pin<Box<impl Future<Output = Result<T, E>>>>,
) -> Result<Response<T>, Status> {
    let started = Instant::now();
    let headers = metadata.into_headers();
    let id = request_id(&headers);
    let traceparent = headers.get(TRACEPARENT).filter(|value| trace_id(value).is_some());
    let span = tracing::info_span!(
        "call",
        method,
        request.id = id.to_str().unwrap_or_default(),
        trace.id = traceparent.and_then(trace_id),
    );
    let work = AssertUnwindSafe(CallContext::new(id.clone(), traceparent.cloned()).scope(work)).catch_unwind();
    let answered = async move {
        let problem: Problem = match work.await {
            Ok(Ok(message)) => return Ok(Response::new(message)),
            Ok(Err(error)) => error.into(),
            // The panic hook has written where and why.
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

/// The gRPC code for what an HTTP status says.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::FailedPrecondition,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// Serves `routes` until `stop` resolves; then accepts no more, and waits for the calls under way, 30 seconds at most.
///
/// # Errors
/// If it cannot serve any more.
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
