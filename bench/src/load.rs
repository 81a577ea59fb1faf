//! Load: each connection sends its next request as soon as the last one is answered.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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
            workers.push(Worker { connection, job, random: Random(number as u64) });
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
    random: Random,
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
            let n = numbers.start() + self.random.below(numbers.end() - numbers.start() + 1);
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
        let mut sent = 0;
        while sent < request.len() {
            match self.stream.try_write(&request[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        let mut read = 0;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[read..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if let Some(head) = Head::read(&self.buffer[..read])?
                && read >= head.answer_length
            {
                return Ok(head.status);
            }
        }
    }
}

struct Head {
    status: u16,
    /// Of head and body, in bytes.
    answer_length: usize,
}

impl Head {
    /// Reads a complete head; `None` before.
    fn read(answer: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&answer[..end]).map_err(io::Error::other)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let length = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok());
        match (status, length) {
            (Some(status), Some(length)) => Ok(Some(Self { status, answer_length: end + 4 + length })),
            _ => Err(io::Error::other("the answer's head has no status or no length")),
        }
    }
}

/// `SplitMix64`: <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}
