//! Where an issuer's keys are read: a file, an address, or the address that the issuer's own document names.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use bytes::Bytes;

use crate::web::{Web, WebError, parse_url};

/// The longest time for all requests of one look.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the keys are.
pub(super) enum Source {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(Web, Uri),
    /// Where the issuer says.
    Issuer(Web, String),
}

/// Why the keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    #[error("the issuer does not answer")]
    Late,
    #[error(transparent)]
    Web(#[from] WebError),
    #[error("the text is not what it must be")]
    Unreadable(#[from] serde_json::Error),
}

impl Source {
    /// Reads the JWK Set.
    pub(super) async fn read(&self) -> Result<Bytes, SourceError> {
        let read = async {
            match self {
                // A few kilobytes, from a local disk or from memory.
                Self::File(path) => std::fs::read(path).map(Bytes::from).map_err(SourceError::File),
                Self::Url(web, url) => Ok(web.get(url.clone()).await?),
                Self::Issuer(web, issuer) => {
                    let keys = web.discover(issuer).await?.jwks_uri;
                    Ok(web.get(parse_url(&keys).map_err(WebError::Address)?).await?)
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap_or(Err(SourceError::Late))
    }
}
