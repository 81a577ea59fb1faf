//! The address of another service.

use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;

use crate::tls::{Calling, Connector, Protocol, TlsConfig};

/// The address of another service: `http://host:port` or `https://host:port`, without a path.
#[derive(Debug, Clone)]
pub struct BaseUrl {
    text: String,
    tls: Option<Calling>,
}

impl FromStr for BaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "must be http://host:port or https://host:port";
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let plain = uri.path() == "/" && uri.query().is_none();
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme @ ("http" | "https")), Some(authority)) if plain && !authority.as_str().contains('@') => {
                Ok(Self { text: format!("{scheme}://{authority}"), tls: None })
            }
            _ => Err(SHAPE),
        }
    }
}

impl From<std::net::SocketAddr> for BaseUrl {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { text: format!("http://{address}"), tls: None }
    }
}

impl BaseUrl {
    /// The same address. If it begins with `https`, calls are encrypted as `config` says.
    ///
    /// # Errors
    /// If the files of `config` cannot be used.
    pub fn encrypted_by(mut self, config: &TlsConfig) -> Result<Self, String> {
        if self.text.starts_with("https:") {
            self.tls = Some(config.calling()?);
        }
        Ok(self)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// What opens connections to it, each within `limit`.
    pub(super) fn connector(&self, protocol: Protocol, limit: Duration) -> Connector {
        Connector::new(self.tls.clone(), protocol, limit)
    }
}
