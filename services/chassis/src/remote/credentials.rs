//! A service's token by client credentials (RFC 6749 §4.4). It is fetched in the background, and again before it ends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::chain;
use crate::throttle;
use crate::web::{Web, WebError, parse_url};

/// The longest time for all requests of one fetch.
const PATIENCE: Duration = Duration::from_secs(3);
/// The shortest pause between two fetches: after a failure, and for a token that ends at once.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest pause before a token is replaced that another service has refused.
const PAUSE_REFUSED: Duration = Duration::from_secs(5);
/// The longest pause after failures. It doubles each time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a token is valid if neither the issuer nor the token says it.
const LIFETIME: Duration = Duration::from_secs(300);

/// Who a service is to an issuer, and what it asks for.
pub(super) struct Credentials {
    pub(super) id: String,
    /// Read for each token, so that a secret can be changed.
    pub(super) secret_file: PathBuf,
    pub(super) endpoint: Endpoint,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
}

/// Where an issuer gives out tokens.
pub(super) enum Endpoint {
    Url(Uri),
    /// Where the document of this issuer says.
    Issuer(String),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("SERVICE_TOKEN_CLIENT_SECRET_FILE cannot be read")]
    Secret(#[source] io::Error),
    #[error("the issuer does not answer")]
    Late,
    #[error(transparent)]
    Web(#[from] WebError),
    #[error("the document of the issuer names no address for tokens: set SERVICE_TOKEN_URL")]
    NoEndpoint,
    /// RFC 6749 §5.2.
    #[error("the issuer refuses a token ({0}: {1})")]
    Refused(StatusCode, String),
    #[error("the issuer's answer has no bearer token")]
    NoToken,
}

/// What is known of the token.
#[derive(Clone)]
enum State {
    /// Nothing yet.
    Waiting,
    /// It could not be fetched, not even once.
    Failed,
    /// The value of `Authorization`.
    Token(HeaderValue),
}

/// A token that is fetched.
pub(super) struct Fetched {
    web: Web,
    credentials: Credentials,
    state: watch::Sender<State>,
    has_begun: AtomicBool,
    refused: Notify,
}

impl Fetched {
    pub(super) fn new(web: Web, credentials: Credentials) -> Self {
        let (has_begun, refused) = (AtomicBool::new(false), Notify::new());
        Self { web, credentials, state: watch::Sender::new(State::Waiting), has_begun, refused }
    }

    /// Whether there is a secret.
    pub(super) fn check(&self) -> Result<(), String> {
        let path = self.credentials.secret_file.display();
        let secret = self.secret().map_err(|error| format!("SERVICE_TOKEN_CLIENT_SECRET_FILE {path}: {error}"))?;
        if secret.is_empty() { Err(format!("SERVICE_TOKEN_CLIENT_SECRET_FILE {path} is empty")) } else { Ok(()) }
    }

    /// Begins to fetch tokens, unless that has begun.
    pub(super) fn begin(self: &Arc<Self>) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(self.clone().keep_current());
        }
    }

    /// The value of `Authorization`. It waits for the first fetch to end. Later ones are not waited for.
    pub(super) async fn header(self: &Arc<Self>) -> Option<HeaderValue> {
        self.begin();
        let mut states = self.state.subscribe();
        let known = states.wait_for(|state| !matches!(state, State::Waiting)).await;
        // The sender lives as long as this value.
        match &*known.ok()? {
            State::Token(value) => Some(value.clone()),
            State::Waiting | State::Failed => None,
        }
    }

    /// Fetches a token soon: the one that is known was refused. The issuer may have new keys.
    pub(super) fn note_refused(&self) {
        self.refused.notify_one();
    }

    fn secret(&self) -> io::Result<String> {
        Ok(std::fs::read_to_string(&self.credentials.secret_file)?.trim().to_owned())
    }

    /// Keeps the token current for ever.
    async fn keep_current(self: Arc<Self>) {
        let mut again = PAUSE;
        loop {
            let begun = Instant::now();
            let fetched = timeout(PATIENCE, self.fetch()).await.unwrap_or(Err(FetchError::Late));
            let pause = match fetched {
                Ok((value, lifetime)) => {
                    self.state.send_replace(State::Token(value));
                    again = PAUSE;
                    // The last quarter is for an issuer that is away for a while.
                    lifetime * 3 / 4
                }
                Err(error) => {
                    self.report(&error);
                    let pause = again;
                    again = (again * 2).min(LONGEST_PAUSE);
                    pause
                }
            };
            let due = begun + pause.max(PAUSE);
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.refused.notified() => sleep_until(due.min(begun + PAUSE_REFUSED)).await,
            }
        }
    }

    fn report(&self, error: &FetchError) {
        let error = chain(error);
        if let Some(omitted) = throttle::line(&error) {
            tracing::warn!(error, omitted, "the token of this service cannot be fetched: the last one is used on");
        }
        self.state.send_if_modified(|state| {
            let is_first = matches!(state, State::Waiting);
            if is_first {
                *state = State::Failed;
            }
            is_first
        });
    }

    /// Fetches a token: the value of `Authorization`, and for how long it is valid.
    async fn fetch(&self) -> Result<(HeaderValue, Duration), FetchError> {
        let endpoint = match &self.credentials.endpoint {
            Endpoint::Url(url) => url.clone(),
            Endpoint::Issuer(issuer) => {
                let endpoint = self.web.discover(issuer).await?.token_endpoint.ok_or(FetchError::NoEndpoint)?;
                parse_url(&endpoint).map_err(WebError::Address)?
            }
        };
        let secret = self.secret().map_err(FetchError::Secret)?;
        let (status, body) = self.web.send(self.credentials.request(endpoint, &secret)).await?;
        if status != StatusCode::OK {
            return Err(FetchError::Refused(status, refusal(&body)));
        }
        let granted: Granted = serde_json::from_slice(&body).map_err(WebError::from)?;
        if !granted.token_type.eq_ignore_ascii_case("bearer") {
            return Err(FetchError::NoToken);
        }
        let lifetime = granted.lifetime();
        Ok((bearer(&granted.access_token).ok_or(FetchError::NoToken)?, lifetime))
    }
}

impl Credentials {
    /// The request for a token. Every issuer knows HTTP Basic (RFC 6749 §2.3.1).
    fn request(&self, endpoint: Uri, secret: &str) -> Request<Full<Bytes>> {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(&self.id), encode(secret))));
        let mut authorization = HeaderValue::from_str(&basic).expect("base64 is visible ASCII");
        authorization.set_sensitive(true);
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            form.extend_pairs(value.iter().map(|value| (name, value)));
        }
        let mut request = Request::new(Full::from(form.finish()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint;
        request.headers_mut().extend([
            (header::AUTHORIZATION, authorization),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        request
    }
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<f64>,
}

impl Granted {
    /// For how long the token is valid, by the shorter of what the issuer and the token say.
    fn lifetime(&self) -> Duration {
        let said = self.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        said.into_iter().chain(self.until_end()).min().unwrap_or(LIFETIME)
    }

    /// The time until the token's `exp`, if it is a JWT.
    fn until_end(&self) -> Option<Duration> {
        #[derive(Deserialize)]
        struct Claims {
            exp: f64,
        }
        let claims = URL_SAFE_NO_PAD.decode(self.access_token.split('.').nth(1)?).ok()?;
        let Claims { exp } = serde_json::from_slice(&claims).ok()?;
        let end = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(exp).ok()?)?;
        Some(end.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// The value of `Authorization` for a token. `None` if the text cannot be one.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let token = Some(token).filter(|token| !token.is_empty() && !token.contains(char::is_whitespace))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The code of an error. What else the issuer says may contain anything.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let code = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.error);
    let code = code.ok().filter(|code| code.len() < 100 && code.bytes().all(|byte| byte.is_ascii_graphic()));
    code.unwrap_or_else(|| "without a reason".to_owned())
}
