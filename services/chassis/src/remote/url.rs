//! The address of another service.

use std::str::FromStr;

use axum::http::Uri;

/// The address of another service: `http://host:port`, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl FromStr for BaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "must be http://host:port";
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let plain = uri.path() == "/" && uri.query().is_none();
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) if plain && !authority.as_str().contains('@') => {
                Ok(Self(format!("http://{authority}")))
            }
            (Some("https"), _) => Err("must be http://host:port: to encrypt between services, use a proxy or a mesh"),
            _ => Err(SHAPE),
        }
    }
}

impl From<std::net::SocketAddr> for BaseUrl {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(format!("http://{address}"))
    }
}

impl BaseUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}
