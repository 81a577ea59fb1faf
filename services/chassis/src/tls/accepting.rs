//! Encrypted connections of clients.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt, future};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::files::Reloading;
use super::{PerProtocol, Protocol};

/// The most handshakes of gRPC connections at once.
const HANDSHAKES: usize = 10_000;

/// How the connections of clients are encrypted. Clones share the files.
#[derive(Debug, Clone)]
pub struct Serving(pub(super) Arc<Reloading<PerProtocol<ServerConfig>>>);

impl Serving {
    /// Encrypts a connection.
    ///
    /// # Errors
    /// If the handshake fails, or takes longer than `limit`.
    pub(crate) async fn accept<C: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: C,
        protocol: Protocol,
        limit: Duration,
    ) -> io::Result<TlsStream<C>> {
        let config = self.0.get().get(protocol);
        let handshake = tokio::time::timeout(limit, TlsAcceptor::from(config).accept(connection));
        let accepted = handshake.await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        accepted.inspect_err(|error| {
            metrics::counter!("tls_handshakes_failed_total").increment(1);
            tracing::debug!(%error, "a client's TLS handshake failed");
        })
    }
}

/// Where connections of clients arrive, encrypted or not.
#[derive(Debug)]
pub struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<Serving>,
}

impl Listener {
    /// The connections to `tcp`, encrypted by `tls`.
    pub fn new(tcp: TcpListener, tls: Option<Serving>) -> Self {
        Self { tcp, tls }
    }
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self { tcp, tls: None }
    }
}

/// The connections of clients, encrypted by `tls`. Handshakes run at the same time, each for at most `limit`.
pub(crate) fn encrypt<C: AsyncRead + AsyncWrite + Unpin>(
    connections: impl Stream<Item = io::Result<C>>,
    tls: Option<Serving>,
    protocol: Protocol,
    limit: Duration,
) -> impl Stream<Item = io::Result<MaybeTls<C>>> {
    let handshakes = connections.map(move |accepted| {
        let tls = tls.clone();
        async move {
            match (accepted, tls) {
                (Err(error), _) => Some(Err(error)),
                (Ok(connection), None) => Some(Ok(MaybeTls::Plain(connection))),
                (Ok(connection), Some(tls)) => {
                    // A client whose handshake fails is no failure of the server.
                    let encrypted = tls.accept(connection, protocol, limit).await.ok()?;
                    Some(Ok(MaybeTls::Encrypted(Box::new(encrypted))))
                }
            }
        }
    });
    handshakes.buffer_unordered(HANDSHAKES).filter_map(future::ready)
}

/// A connection, encrypted or not.
pub(crate) enum MaybeTls<C> {
    Plain(C),
    Encrypted(Box<TlsStream<C>>),
}

impl<C: Connected> Connected for MaybeTls<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> C::ConnectInfo {
        match self {
            Self::Plain(connection) => connection.connect_info(),
            Self::Encrypted(connection) => connection.get_ref().0.connect_info(),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_read(context, buffer),
            Self::Encrypted(connection) => Pin::new(connection).poll_read(context, buffer),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_write(context, bytes),
            Self::Encrypted(connection) => Pin::new(connection).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_write_vectored(context, slices),
            Self::Encrypted(connection) => Pin::new(connection).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(connection) => connection.is_write_vectored(),
            Self::Encrypted(connection) => connection.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_flush(context),
            Self::Encrypted(connection) => Pin::new(connection).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_shutdown(context),
            Self::Encrypted(connection) => Pin::new(connection).poll_shutdown(context),
        }
    }
}
