//! The connections of gRPC clients, with limits on their number, on the time to begin, and on the time to read.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

use crate::http::addresses::{Addresses, OfAddress};
use crate::http::limits::Limits;
use crate::http::serve::pause_after;
use crate::http::timer::RareTimer;

/// The bytes that every HTTP/2 connection begins with: RFC 9113 §3.4.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// The connections to `listener` within `limits`. Further ones are closed.
pub(crate) fn incoming(listener: TcpListener, limits: &Limits) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(limits.max_grpc_connections as usize));
    let (addresses, limits) = (Addresses::default(), limits.clone());
    TcpIncoming::from(listener).with_nodelay(Some(true)).filter_map(move |accepted| {
        let admitted = accepted.map(|tcp| admit(tcp, &places, &addresses, &limits));
        async move {
            match admitted {
                Ok(connection) => connection.map(Ok),
                // tonic would ask again at once.
                Err(error) => {
                    pause_after(&error).await;
                    None
                }
            }
        }
    })
}

fn admit(tcp: TcpStream, places: &Arc<Semaphore>, addresses: &Addresses, limits: &Limits) -> Option<Connection> {
    let most = limits.max_grpc_connections_per_address;
    let place = places.clone().try_acquire_owned().ok();
    let of_address = tcp.peer_addr().ok().and_then(|client: SocketAddr| addresses.enter(client.ip(), most));
    let (Some(place), Some(of_address)) = (place, of_address) else {
        metrics::counter!("grpc_connections_refused_total").increment(1);
        return None;
    };
    let beginning = Some((Box::pin(tokio::time::sleep(limits.head_timeout)), 0));
    let (write_timeout, stalled) = (limits.write_timeout, RareTimer::default());
    Some(Connection { tcp, beginning, write_timeout, stalled, _counted: (place, of_address) })
}

/// A connection that counts for the limits until it is closed.
pub(crate) struct Connection {
    tcp: TcpStream,
    /// The time for the preface, and how many bytes have been read; `None` once it has come.
    beginning: Option<(Pin<Box<Sleep>>, usize)>,
    write_timeout: Duration,
    /// The time for a client that does not read.
    stalled: RareTimer,
    _counted: (OwnedSemaphorePermit, OfAddress),
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.tcp.connect_info()
    }
}

impl Connection {
    /// The outcome of writing, or an error if the client has not read for too long.
    fn written<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return self.stalled.poll(self.write_timeout, context).map(Err);
        }
        self.stalled.stop();
        written
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
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.written(written, context)
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (tcp, _) = listener.accept().await.expect("a client");
        let limits = Limits { write_timeout: Duration::from_millis(50), ..Limits::default() };
        let admitted = admit(tcp, &Arc::new(Semaphore::new(1)), &Addresses::default(), &limits);
        let mut connection = admitted.expect("a place");
        let answer = vec![0; 64 * 1024];
        let written = async {
            loop {
                connection.write_all(&answer).await?;
            }
        };
        let ended: io::Result<()> = tokio::time::timeout(Duration::from_secs(60), written).await.expect("an end");
        assert_eq!(ended.expect_err("it reads nothing").kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
