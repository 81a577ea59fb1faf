//! Serves HTTP until a stop signal, and then answers every request that the machine has accepted.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::coop::unconstrained;
use tower::ServiceExt;

use crate::auth::Auth;
use crate::http::addresses::Addresses;
use crate::http::limits::Limits;
use crate::http::rate::Rates;
use crate::http::stream::{Counted, Stream, Timed};
use crate::http::work::Work;
use crate::throttle;
use crate::tls::{Listener, Protocol, Serving};

/// How long requests in flight may take to finish.
pub(crate) const GRACE: Duration = Duration::from_secs(23);
/// After the stop signal, how long a busy kept-alive connection has to receive an answer with `Connection: close`.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);
/// The whole answer to a connection above the limits.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long a browser asks the service over TLS alone, once it has.
const A_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Listens on `address`, for connections that `tls` encrypts.
///
/// # Errors
/// A sentence that names the address and the `variable` it comes from.
pub async fn bind(address: SocketAddr, variable: &str, tls: Option<Serving>) -> Result<Listener, String> {
    TcpListener::bind(address).await.map(|tcp| Listener::new(tcp, tls)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is in use: stop what uses it, or set {variable} to another"),
        _ => format!("cannot listen on {address} ({error}): set {variable} to an address of this machine"),
    })
}

/// Listens on the address for operators, if there is one.
///
/// # Errors
/// As [`bind`].
pub async fn bind_admin(address: Option<SocketAddr>, tls: Option<Serving>) -> Result<Option<Listener>, String> {
    match address {
        Some(address) => bind(address, "ADMIN_ADDR", tls).await.map(Some),
        None => Ok(None),
    }
}

/// A future that resolves at SIGTERM or SIGINT, in each of its clones.
///
/// # Errors
/// A sentence, if the process cannot listen to signals.
pub fn stop_signal() -> Result<impl Future<Output = ()> + Clone + Send, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals cannot be received: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(stop.shared())
}

/// What `work` brings, or `None` if the program is told to stop before.
pub async fn unless_stopped<T>(stop: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop => None,
        done = work => Some(done),
    }
}

/// [`serve_within`] the default limits.
pub async fn serve(listener: impl Into<Listener>, router: Router, stop: impl Future<Output = ()>, stopping: impl FnOnce()) {
    serve_within(&Limits::default(), Auth::off(), listener, router, stop, stopping).await;
}

/// Serves `router` until `stop` resolves; `auth` knows whose requests are counted together. Then it accepts no more
/// connections, calls `stopping`, and waits up to 23 seconds for the requests in flight. A connection without a request is
/// closed half a second after the stop, even if a part of a head has arrived on it.
pub async fn serve_within(
    limits: &Limits,
    auth: Auth,
    listener: impl Into<Listener>,
    router: Router,
    stop: impl Future<Output = ()>,
    stopping: impl FnOnce(),
) {
    let Listener { tcp: listener, tls } = listener.into();
    let server = Server { tls, ..Server::new(limits.clone(), auth, router) };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => server.open(stream, client),
                Err(error) => pause_after(&error).await,
            },
        }
    }
    tracing::info!("stopping: no new connections, requests in flight finish");
    // Every answer from now on ends its connection. A connection closed between two requests would lose the request that
    // its client is just sending.
    server.leaving.send_replace(true);
    stopping();
    // The kernel has accepted connections that tokio does not know yet. Their requests are answered too.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, client)) = listener.accept() {
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                server.open(stream, client);
            }
        }
    }
    if tokio::time::timeout(GRACE, server.connections.acquire_many(limits.max_connections)).await.is_err() {
        tracing::warn!("stopped with requests unanswered after {GRACE:?}");
    }
}

/// Pauses after an error that repeats at once, such as too many open files. A client that has left needs no pause.
pub(crate) async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        if let Some(omitted) = throttle::line("cannot accept connections") {
            tracing::error!(%error, omitted, "cannot accept connections");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What all connections share.
struct Server {
    limits: Limits,
    tls: Option<Serving>,
    router: Router,
    rates: Option<Arc<Rates>>,
    /// One permit for each connection.
    connections: Arc<Semaphore>,
    addresses: Addresses,
    leaving: watch::Sender<bool>,
    /// It never looks at the value, so each of its copies sees the change, also one that is made later.
    unread: watch::Receiver<bool>,
}

impl Server {
    fn new(limits: Limits, auth: Auth, router: Router) -> Self {
        let connections = Arc::new(Semaphore::new(limits.max_connections as usize));
        let rates = limits.rate_limit.map(|rate| Arc::new(Rates::new(rate, auth)));
        let (leaving, unread) = watch::channel(false);
        Self { limits, tls: None, router, rates, connections, addresses: Addresses::default(), leaving, unread }
    }

    /// Serves a connection in a task of its own, or refuses it if there are too many.
    fn open(&self, stream: TcpStream, client: SocketAddr) {
        let permit = self.connections.clone().try_acquire_owned();
        let of_address = self.addresses.enter(client.ip(), self.limits.max_connections_per_address);
        let (Ok(permit), Some(of_address)) = (permit, of_address) else {
            metrics::counter!("http_connections_refused_total").increment(1);
            // The answer fits into the empty buffer of a new connection, or the client does without.
            let _ = stream.try_write(FULL);
            return;
        };
        let router = self.router.clone();
        // An answer is written whole, so waiting for more bytes would only delay it.
        let _ = stream.set_nodelay(true);
        let work = Arc::new(Work::new(self.unread.clone()));
        let Limits { head_timeout, body_timeout, .. } = self.limits;
        let stream = Stream::new(stream, work.clone(), self.limits.clone());
        let tls = self.tls.clone();
        let rates = self.rates.clone().map(|rates| (rates, client.ip()));
        tokio::spawn(async move {
            match tls {
                None => converse(stream, false, router, rates, work, body_timeout).await,
                Some(tls) => {
                    let handshake = tls.accept(stream, Protocol::Http1, head_timeout);
                    let accepted = tokio::select! {
                        biased;
                        accepted = handshake => accepted.ok(),
                        () = farewell(work.leaving()) => None,
                    };
                    if let Some(mut stream) = accepted {
                        stream.get_mut().0.end_handshake();
                        converse(stream, true, router, rates, work, body_timeout).await;
                    }
                }
            }
            drop((permit, of_address));
        });
    }
}

/// Answers the requests of one connection. Once the server is leaving, it ends as soon as no request is under way.
fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_encrypted: bool,
    router: Router,
    rates: Option<(Arc<Rates>, IpAddr)>,
    work: Arc<Work>,
    body_timeout: Duration,
) -> impl Future<Output = ()> + Send + 'static {
    let counter = work.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let running = counter.begin();
        let mut request = request.map(|body| Body::new(Timed::new(body, body_timeout)));
        request.extensions_mut().insert(counter.clone());
        let router = router.clone();
        let answer = match rates.clone() {
            None => Either::Left(router.oneshot(request)),
            Some((rates, client)) => Either::Right(async move { rates.answer(client, request, router).await }.boxed()),
        };
        async move {
            let mut response: Response = answer.await?;
            if is_encrypted {
                response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, A_YEAR);
            }
            if running.is_last() {
                close_after(&mut response);
            }
            Ok::<_, Infallible>(response.map(|body| Counted { body, _running: running }))
        }
    });
    // The stream has the limits for a head and for the time without a request.
    let connection = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    until_left(connection, work)
}

/// Serves a connection to its end, or until the server is leaving and no request is under way.
async fn until_left(connection: impl GracefulConnection<Error = hyper::Error>, work: Arc<Work>) {
    tokio::pin!(connection);
    // Without a budget: one that is used up would keep it from asking.
    let mut farewell = pin!(unconstrained(farewell(work.leaving())));
    let mut is_heard = false;
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        // Once it is asked, it wakes this task when the server is leaving. To ask at each request would make all connections
        // wait for one lock.
        if !std::mem::replace(&mut is_heard, true) || work.is_leaving() {
            return farewell.as_mut().poll(context).map(|()| None);
        }
        Poll::Pending
    });
    if let Some(ended) = ended.await {
        return count_unreadable(ended);
    }
    connection.as_mut().graceful_shutdown();
    let unused = async {
        while work.is_busy() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        _ = connection => {}
        () = unused => {}
    }
}

/// Counts a request that hyper refuses by itself, without a body: 400, 414 or 431.
fn count_unreadable(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended
        && error.is_parse()
    {
        let reason = if error.is_parse_too_large() { "too large" } else { "malformed" };
        metrics::counter!("http_requests_unreadable_total", "reason" => reason).increment(1);
    }
}

/// Waits until the server has been leaving for a moment.
async fn farewell(mut leaving: watch::Receiver<bool>) {
    // The sender lives as long as the server.
    let _ = leaving.wait_for(|leaving| *leaving).await;
    tokio::time::sleep(FAREWELL).await;
}

/// Asks the client to close the connection after this answer. A client that sends on the idle connection just then must
/// send again, as HTTP requires.
fn close_after(response: &mut Response) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
