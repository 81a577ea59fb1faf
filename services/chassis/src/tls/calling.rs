//! Connections to other services: encrypted if their address begins with `https`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use super::files::Reloading;
use super::{PerProtocol, Protocol};

/// How calls to other services are encrypted. Clones share the files.
#[derive(Debug, Clone)]
pub(crate) struct Calling(pub(super) Arc<Reloading<PerProtocol<ClientConfig>>>);

/// Opens connections to another service.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Option<Calling>,
    protocol: Protocol,
}

impl Connector {
    /// Connects within `limit`, and encrypts by `tls`.
    pub(crate) fn new(tls: Option<Calling>, protocol: Protocol, limit: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(limit));
        tcp.set_nodelay(true);
        // It takes addresses that begin with https, too.
        tcp.enforce_http(false);
        Self { tcp, tls, protocol }
    }
}

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match &self.tls {
            Some(tls) => HttpsConnector::from((self.tcp.clone(), tls.0.get().get(self.protocol))).call(to),
            None => {
                let connecting = self.tcp.call(to);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
        }
    }
}
