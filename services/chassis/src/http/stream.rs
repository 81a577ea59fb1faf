//! A client's connection with limits: on the time without a request, on the time to send a request's head and its body, and
//! on the time that a client reads nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::http::limits::Limits;
use crate::http::timer::{RareTimer, Timer};
use crate::http::work::{Running, Work};

/// The body of an answer. Its request is under way until the body has been taken.
pub(super) struct Counted {
    pub(super) body: Body,
    pub(super) _running: Running,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request. Its client has a limited time to send it, from the moment at which somebody waits for it.
pub(super) struct Timed {
    body: Incoming,
    limit: Duration,
    timer: RareTimer,
}

impl Timed {
    pub(super) fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, timer: RareTimer::default() }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            return frame.map_err(Into::into);
        }
        let limit = self.limit;
        self.timer.poll(limit, context).map(|late| Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection.
pub(super) struct Stream {
    tcp: TcpStream,
    work: Arc<Work>,
    limits: Limits,
    head: RareTimer,
    write: RareTimer,
    idle: Timer,
    /// [`Work::begun`] at the newest bytes. If it is the same later, the bytes are a part of a head.
    begun: Option<usize>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, work: Arc<Work>, limits: Limits) -> Self {
        let (head, write, mut idle) = (RareTimer::default(), RareTimer::default(), Timer::default());
        idle.set(Instant::now() + limits.keep_alive);
        Self { tcp, work, limits, head, write, idle, begun: None }
    }

    /// Forgets the bytes of a TLS handshake: they are no part of a head.
    pub(super) fn end_handshake(&mut self) {
        self.begun = None;
        self.head.stop();
    }

    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.write.stop() {
                self.work.note_stalled(false);
            }
            return written;
        }
        self.work.note_stalled(true);
        self.write.poll(self.limits.write_timeout, context).map(Err)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(context, buffer);
        let begun = self.work.begun();
        if read.is_ready() {
            // While a request is under way, they are a part of its body.
            self.begun = (!self.work.is_busy()).then_some(begun);
            return read;
        }
        if self.begun == Some(begun) {
            let limit = self.limits.head_timeout;
            return self.head.poll(limit, context).map(Err);
        }
        self.head.stop();
        // It goes off for a time that has been extended by a request.
        while self.idle.poll(context).is_ready() {
            let limit = self.work.idle_since() + self.limits.keep_alive;
            if limit <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.idle.set(limit);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.written(context, written)
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
