//! Serves HTTP until told to stop, and then answers what has been accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceExt;

use crate::http::request::close_after;

/// How long requests in flight may take to finish.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// How long a kept-alive connection that is in use has to learn from an answer that it is the last.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens the port.
///
/// # Errors
/// Says which address and variable, and what to do.
pub async fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is in use: stop what uses it, or set {variable} to another"),
        _ => format!("cannot listen on {address} ({error}): set {variable} to an address of this machine"),
    })
}

/// Resolves at SIGTERM or SIGINT, for all that have a clone of it.
///
/// # Errors
/// If the process cannot be told of signals.
pub fn stop_signal() -> io::Result<impl Future<Output = ()> + Clone + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(stop.shared())
}

/// Serves `router` until `stop` resolves; then accepts no more, calls `stopping`, and waits for the requests in flight,
/// 30 seconds at most.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>, stopping: impl FnOnce()) {
    let connections = GracefulShutdown::new();
    let leaving = Arc::new(AtomicBool::new(false));
    let open = |stream| tokio::spawn(connections.watch(connection(stream, router.clone(), leaving.clone())));
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(open(stream)),
                Err(error) => pause_after(&error).await,
            },
        }
    }
    tracing::info!("stopping: no new connections, requests in flight finish");
    // Answers from now on end their connection. That, and not closing it between two requests, is what lets a client
    // that is about to send the next one know.
    leaving.store(true, Ordering::Release);
    stopping();
    // What the kernel has accepted for us is ours to answer.
    // Asked of the kernel itself: tokio may not have heard of the last ones yet.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                drop(open(stream));
            }
        }
    }
    let last_answers = async {
        while connections.count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Over or not, what is idle by then is closed.
    let _ = tokio::time::timeout(FAREWELL, last_answers).await;
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests unanswered after {GRACE:?}");
    }
}

/// A connection that was gone before it was accepted is no matter; other errors, such as too many open files, need time.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The future of one connection.
fn connection(
    stream: TcpStream,
    router: Router,
    leaving: Arc<AtomicBool>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + 'static {
    // Answers are written whole: waiting for more to send along only delays them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let leaving = leaving.clone();
        async move {
            let mut response: Response = router.oneshot(request.map(axum::body::Body::new)).await?;
            if leaving.load(Ordering::Acquire) {
                close_after(&mut response);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
}
