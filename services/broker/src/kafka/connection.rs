//! What relay and consumer share: a client's configuration, its log, and its end.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::ops::Deref;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chassis::events::{Pauses, Trouble};
use chrono::Utc;
use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{self, ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Deserialize;

use super::settings::{Settings, read_secret};

/// How long a token is used that does not say when it expires.
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);

/// Logs and counts what librdkafka reports, and reads the token of a client that has one.
pub(super) struct Listener {
    trouble: Arc<Trouble>,
    token_file: Option<PathBuf>,
    /// Why the last connection ended.
    last: Mutex<String>,
    /// The error that a producer will report again: rdkafka reports each error of a producer twice.
    echo: Option<Mutex<Option<String>>>,
}

impl Listener {
    pub(super) fn new(settings: &Settings, trouble: &Arc<Trouble>) -> Self {
        let token_file = settings.own.oauth_token_file.clone();
        Self { trouble: trouble.clone(), token_file, last: Mutex::default(), echo: None }
    }

    pub(super) fn of_producer(settings: &Settings, trouble: &Arc<Trouble>) -> Self {
        Self { echo: Some(Mutex::default()), ..Self::new(settings, trouble) }
    }

    /// Whether this error was reported just now.
    fn is_echo(&self, error: &KafkaError, reason: &str) -> bool {
        let Some(echo) = &self.echo else { return false };
        let (mut echo, error) = (echo.lock().unwrap_or_else(PoisonError::into_inner), format!("{error}: {reason}"));
        if echo.take_if(|reported| *reported == error).is_some() {
            return true;
        }
        *echo = Some(error);
        false
    }

    /// Reports an error once, and counts it.
    pub(super) fn report(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AutoOffsetReset) {
            // The consumer finds out what it means.
            return;
        }
        count_error(self.trouble.of(), code);
        if let Some(refusal) = refusal(code, reason) {
            return self.report_refusal(&refusal);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match code {
            // One broker of several, or an idle connection that was closed. librdkafka connects again by itself.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => {
                tracing::debug!(topic = self.trouble.of(), reason, "a broker's connection ended");
                *last = lasting(reason).to_owned();
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => self.trouble.report(format!("no broker can be reached: {last}")),
            _ => self.trouble.report(error.to_string()),
        }
    }

    fn report_refusal(&self, reason: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).replace_range(.., reason);
        self.trouble.report(format!("the broker refuses this client: {reason}"));
    }
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// At debug level: librdkafka repeats its lines for as long as a broker is away. Only a line says that a broker without
    /// TLS was asked for TLS, or the other way round.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        let reason = message.split_once("]: ").map_or(message, |(_, reason)| reason);
        if facility == "FAIL"
            && let Some(refusal) = refusal(None, reason)
        {
            self.report_refusal(&refusal);
        }
        tracing::debug!(topic = self.trouble.of(), facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if !self.is_echo(&error, reason) {
            self.report(&error, reason);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let Some(path) = &self.token_file else { return Err("KAFKA_OAUTH_TOKEN_FILE is not set".into()) };
        Ok(read_token(read_secret(path)?))
    }
}

/// What is read of the token.
#[derive(Deserialize, Default)]
struct Claims {
    sub: Option<String>,
    /// Seconds since 1970.
    exp: Option<i64>,
}

/// A token names its principal and its end, if it is a JWT.
fn read_token(token: String) -> OAuthToken {
    let claims = token.split('.').nth(1).and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Claims = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
    let lifetime_ms = match claims.exp {
        Some(seconds) => seconds.saturating_mul(1000),
        None => (Utc::now() + TOKEN_LIFETIME).timestamp_millis(),
    };
    OAuthToken { token, principal_name: claims.sub.unwrap_or_else(|| "service".to_owned()), lifetime_ms }
}

/// Gives the client of an administrator its token. rdkafka asks for tokens by events, and serves those of producers and
/// consumers only. What is wrong with the token, the producer reports.
#[expect(unsafe_code, reason = "rdkafka has no safe function for it")]
pub(super) fn give_token(client: &client::Client<Listener>) {
    let Ok(OAuthToken { token, principal_name, lifetime_ms }) = client.context().generate_oauth_token(None) else { return };
    let (Ok(token), Ok(principal)) = (CString::new(token), CString::new(principal_name)) else { return };
    let mut error: [c_char; 512] = [0; 512];
    // SAFETY: the client lives, librdkafka copies both texts, there are no extensions, and the error fits its buffer.
    unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            error.as_mut_ptr(),
            error.len(),
        );
    }
}

/// A reason without what differs from attempt to attempt.
fn lasting(reason: &str) -> &str {
    reason.split(" (after ").next().unwrap_or(reason)
}

/// Why a broker refuses this client, if it answered, or seems to speak another protocol than the client.
fn refusal(code: Option<RDKafkaErrorCode>, reason: &str) -> Option<String> {
    use RDKafkaErrorCode as Code;
    let is_denied = matches!(
        code,
        Some(
            Code::Authentication
                | Code::SSL
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
        )
    );
    let says = |words: [&str; 2]| words.iter().any(|word| reason.contains(word));
    // librdkafka guesses, or the connection was closed when it began.
    if is_denied || says(["security.protocol", "listener?"]) {
        Some(lasting(reason).to_owned())
    } else if says(["in state APIVERSION_QUERY", "in state SSL_HANDSHAKE"]) {
        Some(format!("{}: does security.protocol fit its listener?", lasting(reason)))
    } else {
        None
    }
}

/// Counts an error of a client, and notes when it was.
pub(super) fn count_error(topic: &'static str, code: Option<RDKafkaErrorCode>) {
    let error = code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"));
    metrics::counter!("kafka_errors_total", "topic" => topic, "error" => error.clone()).increment(1);
    let last = metrics::gauge!("kafka_last_error_timestamp_seconds", "topic" => topic, "error" => error);
    last.set(Utc::now().timestamp() as f64);
}

/// The configuration of every client, with what one kind of client adds.
pub(super) fn config(settings: &Settings, defaults: &[(&str, &str)], guarantees: &[(&str, &str)]) -> ClientConfig {
    // The same as after any other failure.
    let longest = Pauses::LONGEST.as_millis().to_string();
    settings.client(&[&[("reconnect.backoff.max.ms", &*longest)], defaults].concat(), guarantees)
}

/// A client of the cluster. Its drop runs on a thread of its own, because it blocks until the client's threads have ended
/// and a consumer has left its group. While the cluster is away, that takes for ever.
pub(super) struct Client<T: Send + Sync + 'static> {
    client: Option<Arc<T>>,
    patience: Duration,
}

impl<T: Send + Sync + 'static> Client<T> {
    /// A client whose drop waits up to `patience` for the client's end.
    pub(super) fn new(client: T, patience: Duration) -> Self {
        Self { client: Some(Arc::new(client)), patience }
    }

    /// The client itself, for a call that blocks.
    pub(super) fn share(&self) -> Arc<T> {
        self.client.clone().expect("only drop takes it")
    }
}

impl<T: Send + Sync + 'static> Deref for Client<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.client.as_ref().expect("only drop takes it")
    }
}

impl<T: Send + Sync + 'static> Drop for Client<T> {
    fn drop(&mut self) {
        let client = self.client.take();
        let (ended, end) = mpsc::channel::<()>();
        let ending = thread::Builder::new().name("kafka-end".to_owned()).spawn(move || {
            drop(client);
            drop(ended);
        });
        if ending.is_ok() {
            // Nothing is ever sent: the channel closes, or the time runs out.
            let _ = end.recv_timeout(self.patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::FutureProducer;

    use super::*;

    /// A single attempt to connect fails with two errors: the connection's, and then that no broker is left.
    #[test]
    fn an_error_of_a_producer_is_counted_once() {
        let metrics = chassis::metrics::recorder();
        let settings = Settings::new("127.0.0.1:1".parse().expect("a broker"));
        let trouble = Arc::new(Trouble::new("nowhere", "published"));
        let once = [("reconnect.backoff.ms", "600000"), ("reconnect.backoff.max.ms", "600000")];
        let _producer: FutureProducer<Listener> =
            settings.client(&once, &[]).create_with_context(Listener::of_producer(&settings, &trouble)).expect("a producer");
        let count = |error: &str| {
            let (page, label) = (metrics.render(), format!("kafka_errors_total{{topic=\"nowhere\",error=\"{error}\"}} "));
            page.lines().find_map(|line| line.strip_prefix(&label)?.parse::<u32>().ok())
        };
        let last = "AllBrokersDown";
        dev::wait::until_blocking("the last error", || count(last).is_some());
        assert_eq!((count("BrokerTransportFailure"), count(last)), (Some(1), Some(1)));
    }

    #[test]
    fn a_token_names_its_principal_and_its_end() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"orders","exp":1700000000}"#);
        let token = read_token(format!("e30.{claims}.sig"));
        assert_eq!((&*token.principal_name, token.lifetime_ms), ("orders", 1_700_000_000_000));
        let opaque = read_token("opaque".to_owned());
        assert_eq!(opaque.principal_name, "service");
        assert!(opaque.lifetime_ms > Utc::now().timestamp_millis());
    }
}
