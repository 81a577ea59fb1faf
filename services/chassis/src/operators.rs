//! The listener of operators, `ADMIN_ADDR`: metrics, documents, the log level, and gRPC's reflection. Nothing there asks
//! for a token: who reaches the address is an operator.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::grpc::incoming::incoming;
use crate::http::limits::Limits;
use crate::http::problem::Problem;
use crate::http::serve::FAREWELL;
use crate::telemetry::LogLevel;
use crate::tls::{Listener, Protocol, encrypt};

/// Each route there: method and path.
pub const ROUTES: [(&str, &str); 5] =
    [("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/log-level"), ("PUT", "/log-level")];

/// The routes of the log level.
pub(crate) fn log_level(level: LogLevel) -> Router {
    let read = async |State(level): State<LogLevel>| level.directives();
    let write = async |State(level): State<LogLevel>, directives: String| match level.set(&directives) {
        Ok(()) => Ok(level.directives()),
        Err(reason) => Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body {reason}"))),
    };
    Router::new().route("/log-level", get(read).put(write)).with_state(level)
}

/// Serves `routes` over HTTP/1.1 and HTTP/2 until `stop` resolves. Without a listener it only waits.
///
/// # Errors
/// If the server fails.
pub async fn serve(
    limits: &Limits,
    listener: Option<(Listener, Routes)>,
    stop: impl Future<Output = ()> + Clone,
) -> Result<(), String> {
    let Some((Listener { tcp, tls }, routes)) = listener else {
        stop.await;
        return Ok(());
    };
    let incoming = encrypt(incoming(tcp, limits), tls, Protocol::Either, limits.head_timeout);
    let server =
        Server::builder().accept_http1(true).add_routes(routes).serve_with_incoming_shutdown(incoming, stop.clone());
    let too_long = async {
        stop.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server => served.map_err(|error| format!("ADMIN_ADDR cannot be served any more: {error}")),
        // A client could keep a stream open for ever.
        () = too_long => Ok(()),
    }
}
