//! Another service by HTTP.

use std::sync::Arc;

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use super::{BaseUrl, CallContext, Limits, MAX_ANSWER, Remote, RemoteError};

/// Another service, asked by HTTP. Clones share connections, breaker and budget.
#[derive(Debug, Clone)]
pub struct Http {
    remote: Remote,
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    base: BaseUrl,
    max_answer: usize,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// An answer that is no failure of the other service: a status below 500.
#[derive(Debug)]
pub struct Answer {
    neighbour: &'static str,
    /// The status.
    pub status: StatusCode,
    /// Where the answer goes on: the target of its `Link` with `rel="next"`.
    next: Option<String>,
    body: Bytes,
}

impl Answer {
    /// The body.
    ///
    /// # Errors
    /// If it is not what the contract says.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RemoteError> {
        serde_json::from_slice(&self.body).map_err(|error| RemoteError::Unreadable(self.neighbour, error.into()))
    }

    /// Where the answer goes on: the value of this parameter in its link to the next one.
    pub fn cursor(&self, parameter: &str) -> Option<String> {
        let (_, query) = self.next.as_ref()?.split_once('?')?;
        let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == parameter);
        found.map(|(_, value)| value.into_owned())
    }

    /// The error for a status that the contract does not have here.
    pub fn unexpected(&self) -> RemoteError {
        RemoteError::Status(self.neighbour, self.status.to_string())
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
            place: Arc::new(Place { base: base.clone(), max_answer: MAX_ANSWER, client }),
        }
    }

    /// The same, reading larger answers, of up to so many bytes.
    #[must_use]
    pub fn reading_up_to(self, max_answer: usize) -> Self {
        let Place { base, client, .. } = &*self.place;
        let place = Place { base: base.clone(), max_answer, client: client.clone() };
        Self { place: Arc::new(place), ..self }
    }

    /// The guard of these calls.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// `GET path`, which may be repeated without harm, and is, a few times and within a budget.
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
        *request.uri_mut() =
            format!("{}{path}", self.place.base.as_str()).parse().expect("a path that the service itself made");
        *request.headers_mut() = CallContext::headers();
        let response =
            self.place.client.request(request).await.map_err(|error| RemoteError::Unreachable(name, error.into()))?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, self.place.max_answer).collect().await.map_err(|error| RemoteError::Broken(name, error))?;
        if head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(RemoteError::Status(name, head.status.to_string()));
        }
        let link = head.headers.get(header::LINK).and_then(|link| link.to_str().ok());
        let next = link.and_then(|link| link.strip_prefix('<')?.strip_suffix(r#">; rel="next""#)).map(str::to_owned);
        Ok(Answer { neighbour: name, status: head.status, next, body: body.to_bytes() })
    }
}
