//! An address whose server changes, as behind a proxy or a name.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the connections that are open.
#[derive(Debug, Clone, Copy)]
enum Fate {
    End,
    /// They stay open, and nothing passes any more.
    Silence,
}

/// An address on this machine that leads to the server at a port, until the runtime ends.
#[derive(Debug)]
pub struct Address {
    /// The address itself.
    pub address: SocketAddr,
    port: Arc<AtomicU16>,
    fate: watch::Sender<Fate>,
}

impl Address {
    /// Starts with this server.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (port, fate) = (Arc::new(AtomicU16::new(port)), watch::Sender::new(Fate::End));
        let this = Self { address: listener.local_addr()?, port: port.clone(), fate: fate.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, port.load(Ordering::SeqCst), fate.subscribe()));
            }
        });
        Ok(this)
    }

    /// The URL of a server's database, by this address.
    ///
    /// # Panics
    /// If the URL has no login or no database.
    pub fn url(&self, url: &str) -> String {
        let (before, database) = url.rsplit_once('/').expect("a database");
        let (login, _) = before.rsplit_once('@').expect("a login");
        format!("{login}@{}/{database}", self.address)
    }

    /// Leads to another server. The open connections end.
    pub fn lead_to(&self, port: u16) {
        self.lead_new_to(port);
        self.fate.send_replace(Fate::End);
    }

    /// Leads new connections to another server. Those that are open stay.
    pub fn lead_new_to(&self, port: u16) {
        self.port.store(port, Ordering::SeqCst);
    }

    /// Lets nothing pass any more on the open connections, and says so to neither end.
    pub fn silence(&self) {
        self.fate.send_replace(Fate::Silence);
    }
}

async fn connect(mut client: TcpStream, port: u16, mut fate: watch::Receiver<Fate>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        _ = fate.changed() => {}
    }
    let fate = *fate.borrow();
    match fate {
        Fate::End => {}
        Fate::Silence => pending().await,
    }
}

/// The port in a URL of a database.
///
/// # Panics
/// If there is none.
pub fn port(url: &str) -> u16 {
    let (_, behind) = url.rsplit_once(':').expect("a port");
    behind.split('/').next().and_then(|port| port.parse().ok()).expect("a number")
}
