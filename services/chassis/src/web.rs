//! A client for an issuer of tokens: its document, its keys, and the tokens that it gives to services. It follows no
//! redirect.

use std::path::PathBuf;

use axum::http::{Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use crate::tls::{Reloading, trusting};

/// The largest answer read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client. Its callers limit the time.
pub(crate) struct Web(Reloading<HttpsClient>);

/// Why an issuer gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error("the issuer cannot be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the issuer answered {0}")]
    Status(StatusCode),
    #[error("the issuer's answer ended early or is too long")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the text is not what it must be")]
    Unreadable(#[from] serde_json::Error),
    #[error("the document of the issuer is the one of another issuer")]
    OtherIssuer,
    #[error("the document of the issuer names an address that {0}")]
    Address(&'static str),
}

/// An issuer's document: <https://openid.net/specs/openid-connect-discovery-1_0.html>.
#[derive(Deserialize)]
pub(crate) struct Document {
    issuer: String,
    /// Where its keys are.
    pub(crate) jwks_uri: String,
    /// Where it gives out tokens.
    pub(crate) token_endpoint: Option<String>,
}

impl Web {
    /// A client that trusts the authorities in this file, or the system's. When the file changes, it is read again.
    ///
    /// # Errors
    /// If there are none.
    pub(crate) fn new(ca: Option<&PathBuf>) -> Result<Self, String> {
        let ca = ca.cloned();
        Ok(Self(Reloading::new(ca.iter().cloned().collect(), move || open(ca.as_ref()))?))
    }

    /// What is at an address.
    pub(crate) async fn get(&self, url: Uri) -> Result<Bytes, WebError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = url;
        match self.send(request).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(WebError::Status(status)),
        }
    }

    /// The answer to a request.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), WebError> {
        let response = self.0.get().request(request).await.map_err(WebError::Unreachable)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(WebError::Broken)?;
        Ok((status, body.to_bytes()))
    }

    /// The document of an issuer.
    pub(crate) async fn discover(&self, issuer: &str) -> Result<Document, WebError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = parse_url(&url).map_err(WebError::Address)?;
        let document: Document = serde_json::from_slice(&self.get(url).await?)?;
        if document.issuer != issuer {
            return Err(WebError::OtherIssuer);
        }
        Ok(document)
    }
}

fn open(ca: Option<&PathBuf>) -> Result<HttpsClient, String> {
    let tls = trusting("AUTH_CA_FILE", ca)?.with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

/// Reads an address of an issuer. Whoever can change its answers can sign tokens, and whoever can read them can use them, so
/// it is encrypted or on this machine.
pub(crate) fn parse_url(text: &str) -> Result<Uri, &'static str> {
    const SHAPE: &str = "must be https://…, or http://… on this machine";
    let url: Uri = text.parse().map_err(|_| SHAPE)?;
    let host = url.host().ok_or(SHAPE)?;
    let is_local = match host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost",
    };
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_local => Ok(url),
        _ => Err(SHAPE),
    }
}
