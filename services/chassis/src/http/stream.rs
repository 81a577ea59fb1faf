//! A client's connection with limits: on the time to send a request's head and its body, and on the time that a client reads
//! nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// The work on one connection.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Requests whose head has arrived.
    begun: AtomicUsize,
    /// Requests whose answer is not written yet.
    running: AtomicUsize,
    /// Whether the client does not read what is written.
    is_stalled: AtomicBool,
}

impl Work {
    /// Whether a request is under way, or its answer.
    pub(super) fn is_busy(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0 || self.is_stalled.load(Ordering::Acquire)
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.running.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Running(Arc<Work>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

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

/// A timer that exists only while it is needed: in most requests no client is slow.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Starts the timer unless it runs. An error once `limit` has passed.
    fn poll(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Whether the timer ran until now.
    fn stop(&mut self) -> bool {
        self.0.take().is_some()
    }
}

/// The body of a request. Its client has a limited time to send it, from the moment at which somebody waits for it.
pub(super) struct Timed {
    body: Incoming,
    limit: Duration,
    timer: Timer,
}

impl Timed {
    pub(super) fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, timer: Timer::default() }
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
    head_timeout: Duration,
    write_timeout: Duration,
    head: Timer,
    write: Timer,
    /// [`Work::begun`] at the newest bytes. If it is the same later, the bytes are a part of a head.
    begun: Option<usize>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, work: Arc<Work>, head_timeout: Duration, write_timeout: Duration) -> Self {
        let (head, write) = (Timer::default(), Timer::default());
        Self { tcp, work, head_timeout, write_timeout, head, write, begun: None }
    }

    /// Forgets the bytes of a TLS handshake: they are no part of a head.
    pub(super) fn end_handshake(&mut self) {
        self.begun = None;
        self.head.stop();
    }

    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.write.stop() {
                self.work.is_stalled.store(false, Ordering::Release);
            }
            return written;
        }
        self.work.is_stalled.store(true, Ordering::Release);
        self.write.poll(self.write_timeout, context).map(Err)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(context, buffer);
        let begun = self.work.begun.load(Ordering::Acquire);
        if read.is_ready() {
            self.begun = Some(begun);
            return read;
        }
        if self.begun == Some(begun) {
            let limit = self.head_timeout;
            return self.head.poll(limit, context).map(Err);
        }
        self.head.stop();
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
