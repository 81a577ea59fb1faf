//! The connections of gRPC clients, with limits on their number and on the time to begin.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

use crate::http::limits::{Addresses, Limits, OfAddress};

/// The bytes that every HTTP/2 connection begins with: RFC 9113 §3.4.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// The connections to `listener` within `limits`. Further ones are closed.
pub(crate) fn incoming(listener: TcpListener, limits: &Limits) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(limits.max_grpc_connections as usize));
    let (addresses, most, patience) = (Addresses::default(), limits.max_grpc_connections_per_address, limits.head_timeout);
    TcpIncoming::from(listener).with_nodelay(Some(true)).filter_map(move |accepted| {
        future::ready(match accepted {
            Ok(tcp) => admit(tcp, &places, &addresses, most, patience).map(Ok),
            Err(error) => Some(Err(error)),
        })
    })
}

fn admit(
    tcp: TcpStream,
    places: &Arc<Semaphore>,
    addresses: &Addresses,
    most: u32,
    patience: Duration,
) -> Option<Connection> {
    let place = places.clone().try_acquire_owned().ok();
    let of_address = tcp.peer_addr().ok().and_then(|client: SocketAddr| addresses.enter(client.ip(), most));
    let (Some(place), Some(of_address)) = (place, of_address) else {
        metrics::counter!("grpc_connections_refused_total").increment(1);
        return None;
    };
    let beginning = Some((Box::pin(tokio::time::sleep(patience)), 0));
    Some(Connection { tcp, beginning, _counted: (place, of_address) })
}

/// A connection that counts for the limits until it is closed.
pub(crate) struct Connection {
    tcp: TcpStream,
    /// The time for the preface, and how many bytes have been read; `None` once it has come.
    beginning: Option<(Pin<Box<Sleep>>, usize)>,
    _counted: (OwnedSemaphorePermit, OfAddress),
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.tcp.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(context, buffer);
        let Some((limit, count)) = &mut self.beginning else { return read };
        *count += buffer.filled().len() - before;
        if *count >= PREFACE {
            self.beginning = None;
            return read;
        }
        if read.is_pending() {
            ready!(limit.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
