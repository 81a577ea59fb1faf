//! Who may call: bearer tokens (RFC 6750) that are JWTs (RFC 7519), signed by the keys of one issuer.

pub mod access;
mod config;
mod crypto;
mod identity;
mod keys;
mod refusal;
mod source;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::chain;
use crate::http::problem::Problem;
use crate::throttle;
pub use access::{Access, Needs};
pub use config::AuthConfig;
pub use identity::Caller;
use identity::Identity;
use keys::{Expected, Hash, Keys, Unverified, hash};
use refusal::Refusal;
use source::{Source, SourceError};

/// How often a file is compared with what was read of it.
const LOOK: Duration = Duration::from_secs(1);
/// How often the keys are fetched from an address.
const FETCH: Duration = Duration::from_secs(60);
/// How often they are fetched while that fails.
const FETCH_AGAIN: Duration = Duration::from_secs(5);
/// The pause between two looks for keys that are unknown.
const PAUSE: Duration = Duration::from_secs(2);

/// Who may call a service. Clones share it.
#[derive(Clone, Default)]
pub struct Auth(Option<Arc<Verifier>>);

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "jwt" } else { "off" })
    }
}

struct Verifier {
    source: Source,
    expected: Expected,
    /// The service listens on loopback only.
    is_local: bool,
    keys: RwLock<Option<Arc<Keys>>>,
    /// When the last look for an unknown key began, and whether it succeeded. One request looks, and others wait for it.
    looked: Mutex<Option<(Instant, bool)>>,
}

/// What is known of a caller at once.
pub(crate) enum Admission {
    /// The caller may call, or may not.
    Judged(Result<Option<Caller>, Problem>),
    /// The token must be verified first.
    Unknown(Pending),
}

/// A caller whose token must be verified.
pub(crate) struct Pending {
    verifier: Arc<Verifier>,
    token: String,
    needs: Option<Needs>,
    id: Option<Uuid>,
}

impl Auth {
    /// Everybody may do everything.
    pub fn off() -> Self {
        Self(None)
    }

    /// Tokens as `expected`, with keys from `source`.
    async fn jwt(source: Source, expected: Expected, is_local: bool) -> Result<Self, String> {
        crypto::install();
        let (keys, looked) = (RwLock::default(), Mutex::default());
        let verifier = Arc::new(Verifier { source, expected, is_local, keys, looked });
        let read = verifier.read_keys().await;
        match (&verifier.source, read) {
            // Nothing but its owner mends a file.
            (Source::File(path), Err(error)) => {
                return Err(format!("AUTH_JWKS_FILE {}: {}", path.display(), chain(&error)));
            }
            (Source::File(path), Ok(())) if verifier.keys().is_none_or(|keys| keys.is_empty()) => {
                return Err(format!("AUTH_JWKS_FILE {} has no key for RS256, ES256 or EdDSA", path.display()));
            }
            (_, read) => verifier.report(read.as_ref().err()),
        }
        tokio::spawn(verifier.clone().keep_current());
        Ok(Self(Some(verifier)))
    }

    /// Whether tokens can be verified.
    ///
    /// # Errors
    /// 503 before the issuer's keys were read for the first time.
    pub fn check(&self) -> Result<(), Problem> {
        match &self.0 {
            Some(verifier) if verifier.keys().is_none() => Err(Refusal::NoKeys.problem(None)),
            _ => Ok(()),
        }
    }

    /// Whether callers of a route that `needs` this must send a token.
    pub(crate) fn asks(&self, needs: Needs) -> bool {
        match (&self.0, needs) {
            (None, _) | (_, Needs::Nothing) => false,
            (Some(verifier), Needs::Token) => !verifier.is_local,
            (Some(_), _) => true,
        }
    }

    /// The subject of the request's token. `None` without a token that a key known now has signed: nothing is looked up.
    pub(crate) fn subject(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let token = read_token(headers).ok()?;
        let keys = self.0.as_ref()?.keys()?;
        let hash = hash(token);
        let identity = keys.remembered(&hash).or_else(|| keys.verify(token, hash).ok())?;
        Some(identity.subject())
    }

    /// Judges the caller of a route that `needs` this. `None` is a route that does not exist: it needs a token, so that
    /// strangers do not learn which ones do. `id` is the one in the path.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        needs: impl FnOnce() -> Option<Needs>,
        id: impl FnOnce() -> Option<Uuid>,
    ) -> Admission {
        let Some(verifier) = &self.0 else { return Admission::Judged(Ok(None)) };
        let needs = needs();
        if needs.is_some_and(|needs| !self.asks(needs)) {
            return Admission::Judged(Ok(None));
        }
        let scope = needs.and_then(Needs::scope);
        let token = match read_token(headers) {
            Ok(token) => token,
            Err(refusal) => return Admission::Judged(Err(refusal.problem(scope))),
        };
        match verifier.keys().and_then(|keys| keys.remembered(&hash(token))) {
            Some(identity) => Admission::Judged(judge(&identity, needs, id).map(Some)),
            None => {
                let (verifier, token) = (verifier.clone(), token.to_owned());
                Admission::Unknown(Pending { verifier, token, needs, id: id() })
            }
        }
    }
}

impl Pending {
    /// Verifies the token, and judges the caller.
    pub(crate) async fn judge(self) -> Result<Option<Caller>, Problem> {
        let Self { verifier, token, needs, id } = self;
        match verifier.verify(&token).await {
            Ok(identity) => judge(&identity, needs, || id).map(Some),
            Err(refusal) => Err(refusal.problem(needs.and_then(Needs::scope))),
        }
    }
}

impl Pending {
    /// Verifies the token by the keys that are known, and judges the caller.
    pub(crate) fn judge_now(self) -> Result<Option<Caller>, Problem> {
        let Self { verifier, token, needs, id } = self;
        let verified = verifier.keys().ok_or(Refusal::NoKeys);
        let verified = verified.and_then(|keys| Ok(keys.verify(&token, hash(&token))?));
        match verified {
            Ok(identity) => judge(&identity, needs, || id).map(Some),
            Err(refusal) => Err(refusal.problem(needs.and_then(Needs::scope))),
        }
    }
}

fn judge(identity: &Arc<Identity>, needs: Option<Needs>, id: impl FnOnce() -> Option<Uuid>) -> Result<Caller, Problem> {
    let needs = needs.unwrap_or(Needs::Token);
    needs.judge(identity, id).map_err(|refusal| refusal.problem(needs.scope()))
}

/// The token of a request (RFC 6750 §2.1).
fn read_token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).into_iter();
    let value = values.next().ok_or(Refusal::NoToken)?;
    if values.next().is_some() {
        return Err(Refusal::BadToken("there are two fields Authorization"));
    }
    let text = value.to_str().map_err(|_| Refusal::NoToken)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::NoToken);
    }
    Some(token.trim_matches(' ')).filter(|token| !token.is_empty()).ok_or(Refusal::NoToken)
}

impl Verifier {
    fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn verify(&self, token: &str) -> Result<Arc<Identity>, Refusal> {
        let hash: Hash = hash(token);
        let verified = self.keys().map(|keys| keys.verify(token, hash));
        match verified {
            Some(Ok(identity)) => return Ok(identity),
            Some(Err(bad @ Unverified::Bad(_))) => return Err(bad.into()),
            Some(Err(Unverified::UnknownKey)) | None => {}
        }
        let read = self.look_for_new_keys().await;
        match (self.keys().map(|keys| keys.verify(token, hash)), read) {
            (Some(Ok(identity)), _) => Ok(identity),
            (Some(Err(Unverified::UnknownKey)) | None, false) => Err(Refusal::NoKeys),
            (Some(Err(unverified)), _) => Err(unverified.into()),
            (None, true) => Err(Refusal::NoKeys),
        }
    }

    /// Reads the keys again, for all who wait for that: whether they could be read.
    async fn look_for_new_keys(&self) -> bool {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some((last, succeeded)) = *looked {
            if last >= asked {
                return succeeded;
            }
            tokio::time::sleep_until(last + PAUSE).await;
        }
        let began = Instant::now();
        let read = self.read_keys().await;
        self.report(read.as_ref().err());
        *looked = Some((began, read.is_ok()));
        read.is_ok()
    }

    /// Reads the keys. The same ones as before stay, with the tokens that they have signed.
    async fn read_keys(&self) -> Result<(), SourceError> {
        let text = self.source.read().await?;
        if self.keys().is_some_and(|keys| keys.are_from(&text)) {
            return Ok(());
        }
        let keys = Keys::read(text, &self.expected)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        tracing::info!("the keys of the tokens' issuer were read");
        Ok(())
    }

    /// Keeps the keys current for ever.
    async fn keep_current(self: Arc<Self>) {
        let mut is_current = self.keys().is_some();
        loop {
            let pause = match self.source {
                Source::File(_) => LOOK,
                _ if is_current => FETCH,
                _ if self.keys().is_none() => LOOK,
                _ => FETCH_AGAIN,
            };
            tokio::time::sleep(pause).await;
            let read = {
                let _alone = self.looked.lock().await;
                self.read_keys().await
            };
            is_current = read.is_ok();
            self.report(read.as_ref().err());
        }
    }

    fn report(&self, error: Option<&SourceError>) {
        if let Some(error) = error.map(|error| chain(error))
            && let Some(omitted) = throttle::line(&error)
        {
            let known = self.keys().is_some();
            tracing::warn!(error, omitted, known, "the keys of the tokens' issuer cannot be read: known ones stay valid");
        }
    }
}
