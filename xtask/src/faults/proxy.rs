//! A proxy between a client and a server, which can be late, silent, dead, or talk nonsense.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What HTTP clients read in [`Mode::Garbage`].
const GARBAGE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>Hello\n";

/// How the proxy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// What comes from the server is passed on after this time.
    Late(Duration),
    /// Every connection is closed.
    Dead,
    /// Connections are accepted, and nothing is answered.
    Silent,
    /// Every request is answered by a page of HTML.
    Garbage,
}

/// The proxy. It ends when this value is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `server`.
    pub async fn start(server: SocketAddr, mode: Mode) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the proxy has no port")?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(mode);
        let modes = mode.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut changes = modes.subscribe();
                tokio::spawn(async move {
                    let mode = *changes.borrow_and_update();
                    // Whatever ends a conversation, its connections are closed.
                    tokio::select! {
                        _ = converse(client, server, mode) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, mode, task })
    }

    /// Behaves so from now on. All connections are closed.
    pub fn turn(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut client: TcpStream, server: SocketAddr, mode: Mode) -> std::io::Result<()> {
    let late = match mode {
        Mode::Dead => return Ok(()),
        Mode::Silent => return std::future::pending().await,
        Mode::Garbage => {
            let mut request = [0; 4096];
            while client.read(&mut request).await? > 0 {
                client.write_all(GARBAGE).await?;
            }
            return Ok(());
        }
        Mode::Pass => Duration::ZERO,
        Mode::Late(late) => late,
    };
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The end of one direction ends the conversation.
    tokio::select! {
        ended = pass(from_client, to_server, Duration::ZERO) => ended,
        ended = pass(from_server, to_client, late) => ended,
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, late: Duration) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}
