//! A small HTTP client. The same calls go to a router in this process or to an address.

use std::fmt::Display;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tower::ServiceExt;

/// Longer than any answer takes: a feed waits for 30 s at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends calls to a router or to an address.
#[derive(Clone)]
pub struct Client {
    to: To,
    token: Option<String>,
}

#[derive(Clone)]
enum To {
    Router(Router),
    Address { base: String, pool: Box<Pool<HttpConnector, Body>> },
}

/// A call got no answer, or not the expected one.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The connection failed before the answer was complete.
    #[error("no answer: {0}")]
    Broken(String),
    /// The answer took longer than a minute.
    #[error("no answer within a minute")]
    Late,
    /// The answer has another status, or its body is no JSON.
    #[error("the answer has status {0}: {1}")]
    Unexpected(u16, String),
}

impl Client {
    /// A client that calls `router` without a network.
    pub fn router(router: Router) -> Self {
        Self { to: To::Router(router), token: None }
    }

    /// A client that calls `host:port` over kept-alive connections.
    pub fn at(address: impl Display) -> Self {
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        Self { to: To::Address { base: format!("http://{address}"), pool: Box::new(pool) }, token: None }
    }

    /// The same client, whose calls bear this token.
    #[must_use]
    pub fn bearing(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// `GET path`.
    pub fn get(&self, path: impl Display) -> Call {
        self.call(Method::GET, path)
    }

    /// `POST path`.
    pub fn post(&self, path: impl Display) -> Call {
        self.call(Method::POST, path)
    }

    /// `PATCH path`.
    pub fn patch(&self, path: impl Display) -> Call {
        self.call(Method::PATCH, path)
    }

    /// `DELETE path`.
    pub fn delete(&self, path: impl Display) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Whether the server answers its readiness check with 200.
    pub async fn is_ready(&self) -> bool {
        self.get("/health/ready").send().await.is_ok_and(|answer| answer.status == 200)
    }

    /// `method path`.
    ///
    /// # Panics
    /// When the call is awaited, if `path` is no path. If the client's token cannot stand in a header.
    pub fn call(&self, method: Method, path: impl Display) -> Call {
        let (path, headers, body) = (path.to_string(), HeaderMap::new(), Bytes::new());
        let call = Call { client: self.clone(), method, path, headers, body };
        match &self.token {
            Some(token) => call.header("authorization", format_args!("Bearer {token}")),
            None => call,
        }
    }
}

/// A request, sent by awaiting it (which panics if there is no answer) or by [`Call::send`].
#[must_use = "a call is sent by awaiting it"]
pub struct Call {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// Adds a header.
    ///
    /// # Panics
    /// If the name or the value is invalid in a header.
    pub fn header(mut self, name: &'static str, value: impl Display) -> Self {
        let value = value.to_string().parse().expect("a header's value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Sends a body of any type.
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE.as_str(), content_type)
    }

    /// Sends a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Whether the request only reads.
    pub fn reads(&self) -> bool {
        self.method.is_safe()
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// If there is no complete answer.
    pub async fn send(self) -> Result<Answer, Unanswered> {
        let Self { client, method, path, headers, body } = self;
        let base = match &client.to {
            To::Router(_) => "",
            To::Address { base, .. } => base,
        };
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if let Some(all) = request.headers_mut() {
            *all = headers;
        }
        let mut request = request.body(Body::from(body)).map_err(broken)?;
        let exchange = async {
            let response = match client.to {
                To::Router(router) => {
                    request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
                    router.oneshot(request).await.expect("infallible")
                }
                To::Address { pool, .. } => pool.request(request).await.map_err(broken)?.map(Body::new),
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| Unanswered::Late)?
    }

    /// Sends the request, and reads the JSON of an answer that has this status: the form for commands, which report errors.
    ///
    /// # Errors
    /// If there is no such answer.
    pub async fn answered(self, status: u16) -> Result<Value, Unanswered> {
        let answer = self.send().await?;
        let body = (answer.status == status).then(|| serde_json::from_slice(&answer.body).ok()).flatten();
        body.ok_or_else(|| Unanswered::Unexpected(answer.status, answer.text()))
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let call = format!("{} {}", self.method, self.path);
        Box::pin(async move { self.send().await.unwrap_or_else(|error| panic!("{call}: {error}")) })
    }
}

fn broken(error: impl Display) -> Unanswered {
    Unanswered::Broken(error.to_string())
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Three digits, such as 200.
    pub status: u16,
    /// Including repeated ones.
    pub headers: HeaderMap,
    /// All of it, undecoded.
    pub body: Bytes,
}

impl Answer {
    /// The answer itself, if it has this status.
    ///
    /// # Panics
    /// If it has another status. The message shows the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The body, parsed as JSON.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header that occurs once.
    ///
    /// # Panics
    /// If the header is missing, or occurs twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0].to_str().expect("text")
    }

    /// The problem in the body (RFC 9457), of this status and type: a name such as `email-taken`, or `""` for `about:blank`.
    ///
    /// # Panics
    /// If the answer is not this problem.
    #[track_caller]
    pub fn problem(self, status: u16, name: &str) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = answer.json();
        let expected = if name.is_empty() { "about:blank".to_owned() } else { format!("urn:problem-type:{name}") };
        assert_eq!(problem["type"], expected.as_str(), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for text in ["title", "detail", "instance"] {
            assert!(problem[text].is_string(), "{text} of {problem}");
        }
        problem
    }

    /// The pointers of a 422's field errors, in order.
    ///
    /// # Panics
    /// If the answer is no such problem.
    #[track_caller]
    pub fn pointers(self) -> Vec<String> {
        let problem = self.problem(422, "");
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors in {problem}"));
        errors.iter().map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect()
    }
}
