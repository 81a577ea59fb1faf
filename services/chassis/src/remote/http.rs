//! Another service by HTTP.

use std::sync::Arc;

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use super::guard::{Limits, Remote, RemoteError};
use super::url::BaseUrl;
use crate::context::CallContext;

/// The largest answer read, in bytes, unless the caller allows more. The largest page of a list is far smaller.
const MAX_ANSWER: usize = 1024 * 1024;

/// Another service, called by HTTP. Clones share connections, circuit breaker and budget.
#[derive(Debug, Clone)]
pub struct Http {
    remote: Remote,
    endpoint: Arc<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    base: BaseUrl,
    max_answer: usize,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// An answer with a status below 500, except 429. Other answers are [`RemoteError`]s.
#[derive(Debug)]
pub struct Answer {
    service: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// The target of the `Link` with `rel="next"`.
    next: Option<String>,
    body: Bytes,
}

impl Answer {
    /// Reads the body as JSON.
    ///
    /// # Errors
    /// If the body does not fit `T`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RemoteError> {
        serde_json::from_slice(&self.body).map_err(|error| RemoteError::Unreadable(self.service, error.into()))
    }

    /// The value of `parameter` in the link to the next page.
    pub fn cursor(&self, parameter: &str) -> Option<String> {
        let (_, query) = self.next.as_ref()?.split_once('?')?;
        let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == parameter);
        found.map(|(_, value)| value.into_owned())
    }

    /// The error for a status that the contract does not allow here.
    pub fn unexpected(&self) -> RemoteError {
        RemoteError::Status(self.service, self.status.to_string())
    }
}

impl Http {
    /// The service called `name` in metrics and logs.
    pub fn new(name: &'static str, base: &BaseUrl, limits: Limits) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits.connect));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self {
            remote: Remote::new(name, limits),
            endpoint: Arc::new(Endpoint { base: base.clone(), max_answer: MAX_ANSWER, client }),
        }
    }

    /// Allows answers of up to `max_answer` bytes.
    #[must_use]
    pub fn reading_up_to(self, max_answer: usize) -> Self {
        let Endpoint { base, client, .. } = &*self.endpoint;
        let endpoint = Endpoint { base: base.clone(), max_answer, client: client.clone() };
        Self { endpoint: Arc::new(endpoint), ..self }
    }

    /// The guard of these calls.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// `GET path`, with a few retries.
    ///
    /// # Errors
    /// [`RemoteError`], within the limits.
    pub async fn get(&self, path: &str) -> Result<Answer, RemoteError> {
        self.remote.call(|_limit| self.attempt(path)).await
    }

    async fn attempt(&self, path: &str) -> Result<Answer, RemoteError> {
        let name = self.remote.name();
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = format!("{}{path}", self.endpoint.base.as_str()).parse().expect("callers build valid paths");
        *request.headers_mut() = CallContext::headers();
        let response =
            self.endpoint.client.request(request).await.map_err(|error| RemoteError::Unreachable(name, error.into()))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.endpoint.max_answer)
            .collect()
            .await
            .map_err(|error| RemoteError::Broken(name, error))?;
        if head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(RemoteError::Status(name, head.status.to_string()));
        }
        let link = head.headers.get(header::LINK).and_then(|link| link.to_str().ok());
        let next = link.and_then(|link| link.strip_prefix('<')?.strip_suffix(r#">; rel="next""#)).map(str::to_owned);
        Ok(Answer { service: name, status: head.status, next, body: body.to_bytes() })
    }
}
