//! Another service by HTTP.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use super::guard::{Limits, Remote, RemoteError};
use super::link;
use super::token::ServiceToken;
use super::url::BaseUrl;
use crate::context::{CallContext, READ_AFTER, TRACEPARENT};
use crate::tls::{Connector, Protocol};
use crate::traces::ClientSpan;

/// The largest answer read, in bytes, unless the caller allows more. The largest page of a list is far smaller.
const MAX_ANSWER: usize = 1024 * 1024;

/// A value of `Read-After` that no log has: such a read comes from the primary.
const NOW: HeaderValue = HeaderValue::from_static("now");

/// Another service, called by HTTP. Clones share connections, circuit breaker and budget.
#[derive(Debug, Clone)]
pub struct Http {
    remote: Remote,
    endpoint: Arc<Endpoint>,
    token: ServiceToken,
}

#[derive(Debug)]
struct Endpoint {
    base: BaseUrl,
    max_answer: usize,
    client: Client<Connector, Empty<Bytes>>,
}

/// An answer of the service itself with a status below 500, except 429. Other answers are [`RemoteError`]s.
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
        let connector = base.connector(Protocol::Http1, limits.connect);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self {
            remote: Remote::new(name, limits),
            endpoint: Arc::new(Endpoint { base: base.clone(), max_answer: MAX_ANSWER, client }),
            token: ServiceToken::default(),
        }
    }

    /// Shows this token.
    #[must_use]
    pub fn showing(self, token: ServiceToken) -> Self {
        Self { token, ..self }
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

    /// `GET path`, with a few retries. The answer is no older than the call, since it may decide a write.
    ///
    /// # Errors
    /// [`RemoteError`], within the limits.
    pub async fn get(&self, path: &str) -> Result<Answer, RemoteError> {
        self.remote.call(|_limit| self.attempt(path, Some(NOW))).await
    }

    /// [`Http::get`] where a standby of the other service may answer.
    ///
    /// # Errors
    /// [`RemoteError`], within the limits.
    pub async fn get_from_any(&self, path: &str) -> Result<Answer, RemoteError> {
        self.remote.call(|_limit| self.attempt(path, None)).await
    }

    async fn attempt(&self, path: &str, read_after: Option<HeaderValue>) -> Result<Answer, RemoteError> {
        let mut span = ClientSpan::http(self.endpoint.base.as_str(), path);
        let answer = self.exchange(path, read_after, span.as_mut()).await;
        if let (Some(span), Err(error)) = (&mut span, &answer) {
            span.failed(error.outcome());
        }
        answer
    }

    async fn exchange(
        &self,
        path: &str,
        read_after: Option<HeaderValue>,
        mut span: Option<&mut ClientSpan>,
    ) -> Result<Answer, RemoteError> {
        let name = self.remote.name();
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = format!("{}{path}", self.endpoint.base.as_str()).parse().expect("callers build valid paths");
        *request.headers_mut() = CallContext::headers();
        request.headers_mut().extend(read_after.map(|value| (READ_AFTER, value)));
        if let Some(span) = &span {
            request.headers_mut().insert(TRACEPARENT, span.traceparent());
        }
        request.headers_mut().extend(self.token.header().await.map(|token| (header::AUTHORIZATION, token)));
        let response =
            self.endpoint.client.request(request).await.map_err(|error| RemoteError::Unreachable(name, error.into()))?;
        let (head, body) = response.into_parts();
        if let Some(span) = &mut span {
            span.answered(head.status);
        }
        if head.status == StatusCode::UNAUTHORIZED {
            self.token.note_refused();
        }
        let body = Limited::new(body, self.endpoint.max_answer)
            .collect()
            .await
            .map_err(|error| RemoteError::Broken(name, error))?;
        if head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(RemoteError::Status(name, head.status.to_string()));
        }
        let body = body.to_bytes();
        if !is_of_service(path, head.status, &head.headers, &body) {
            return Err(RemoteError::Status(name, format!("{}, but not as {name} does", head.status)));
        }
        let next = link::target(&head.headers, "next");
        Ok(Answer { service: name, status: head.status, next, body })
    }
}

/// What a problem says of its request.
#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    status: Option<u16>,
    #[serde(borrow)]
    instance: Option<Cow<'a, str>>,
}

/// Whether the service itself answered, and not a gateway in its place: a success is JSON, and an error a problem. Some
/// gateways have problems of their own: about another request than this one, or without a type.
fn is_of_service(path: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match status {
        status if status.is_success() => media_type == "application/json" || media_type.ends_with("+json"),
        status if status.is_client_error() && media_type == "application/problem+json" => {
            let problem = serde_json::from_slice::<Refusal>(body);
            problem.is_ok_and(|Refusal { r#type, status: written, instance }| {
                (r#type == "about:blank" || r#type.starts_with("urn:problem-type:"))
                    && written.is_none_or(|written| written == status.as_u16())
                    && instance.is_none_or(|instance| Some(&*instance) == path.split('?').next())
            })
        }
        _ => false,
    }
}
