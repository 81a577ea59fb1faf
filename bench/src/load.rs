//! Load: each connection sends its next request as soon as the last one is answered.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use httparse::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::jobs::Job;

/// Connections, each with one request at a time.
pub const CONNECTIONS: usize = 32;
/// Larger than any answer.
const BUFFER: usize = 128 * 1024;

/// The answers to a load.
#[derive(Debug)]
pub struct Answers {
    /// Of each answered request, in microseconds; sorted.
    pub latencies: Vec<u32>,
    /// Answers with a wrong status.
    pub failures: u64,
    /// From the first request to the last answer.
    pub duration: Duration,
}

/// Connections to a server.
pub struct Load {
    workers: Vec<Worker>,
}

impl Load {
    /// Opens the connections.
    pub async fn connect(address: SocketAddr, job: Job) -> Result<Self> {
        let mut workers = Vec::new();
        for number in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.with_context(|| format!("no connection to {address}"))?;
            stream.set_nodelay(true)?;
            let connection = Connection { stream, buffer: vec![0; BUFFER] };
            workers.push(Worker { connection, job, random: Rng::with_seed(number as u64) });
        }
        Ok(Self { workers })
    }

    /// Sends requests for `length`.
    pub async fn drive(&mut self, length: Duration) -> Result<Answers> {
        let started = Instant::now();
        let mut running = JoinSet::new();
        for mut worker in self.workers.drain(..) {
            running.spawn(async move {
                let answered = worker.run(started + length).await;
                (worker, answered)
            });
        }
        let mut all = Answers { latencies: Vec::new(), failures: 0, duration: Duration::ZERO };
        while let Some(ended) = running.join_next().await {
            let (worker, answered) = ended?;
            let (latencies, failures) = answered.context("a request got no answer")?;
            self.workers.push(worker);
            all.latencies.extend(latencies);
            all.failures += failures;
        }
        all.duration = started.elapsed();
        all.latencies.sort_unstable();
        ensure!(!all.latencies.is_empty(), "no request was answered");
        Ok(all)
    }
}

struct Worker {
    connection: Connection,
    job: Job,
    random: Rng,
}

impl Worker {
    /// Latencies in microseconds, and the number of wrong answers.
    async fn run(&mut self, deadline: Instant) -> io::Result<(Vec<u32>, u64)> {
        let mut request = self.job.request();
        let (numbers, status) = (self.job.numbers(), self.job.status());
        let (mut latencies, mut failures) = (Vec::new(), 0);
        let mut now = Instant::now();
        while now < deadline {
            let sent = now;
            let n = self.random.u64(numbers.clone());
            if self.connection.exchange(request.with(n)).await? != status {
                failures += 1;
            }
            now = Instant::now();
            latencies.push(u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX));
        }
        Ok((latencies, failures))
    }
}

/// A kept-alive HTTP/1.1 connection. It does the minimum, since the client takes CPU time from the server.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends a request, reads the whole answer, and returns its status.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let mut read = 0;
        loop {
            match self.stream.read(&mut self.buffer[read..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => read += bytes,
            }
            match read_head(&self.buffer[..read])? {
                Some((status, length)) if read >= length => return Ok(status),
                _ => {}
            }
        }
    }
}

/// The status of an answer and its length, head and body; `None` before the head is complete.
fn read_head(answer: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let Status::Complete(end) = head.parse(answer).map_err(io::Error::other)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    match (head.code, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + length))),
        _ => Err(io::Error::other("the answer's head has no status or no length")),
    }
}
