//! Serves HTTP until a stop signal, and then answers every request that the machine has accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
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

/// How long requests in flight may take to finish.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// After the stop signal, how long a busy kept-alive connection has to receive an answer with `Connection: close`.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Listens on `address`.
///
/// # Errors
/// A sentence that names the address and the `variable` it comes from.
pub async fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is in use: stop what uses it, or set {variable} to another"),
        _ => format!("cannot listen on {address} ({error}): set {variable} to an address of this machine"),
    })
}

/// A future that resolves at SIGTERM or SIGINT, in each of its clones.
///
/// # Errors
/// If the process cannot listen to signals.
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

/// Serves `router` until `stop` resolves. Then it accepts no more connections, calls `stopping`, and waits up to 30 seconds
/// for the requests in flight.
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
    // Every answer from now on ends its connection. A connection closed between two requests would lose the request that
    // its client is just sending.
    leaving.store(true, Ordering::Release);
    stopping();
    // The kernel has accepted connections that tokio does not know yet. Their requests are answered too.
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
    // After this wait, idle connections are closed.
    let _ = tokio::time::timeout(FAREWELL, last_answers).await;
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests unanswered after {GRACE:?}");
    }
}

/// Pauses after an error that repeats at once, such as too many open files. A client that has left needs no pause.
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
    // An answer is written whole, so waiting for more bytes would only delay it.
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

/// Asks the client to close the connection after this answer. A client that sends on the idle connection just then must
/// send again, as HTTP requires.
fn close_after(response: &mut Response) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
