//! Who a verified token speaks for.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use uuid::Uuid;

use crate::http::path::parse_id;

/// How far the issuer's clock and this one may be apart, in seconds.
pub(super) const SKEW: u64 = 60;
/// The most characters of a subject (`OpenID` Connect Core §2).
const MAX_SUBJECT: usize = 255;

/// The claims that services read of a token.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    scope: Option<Scopes>,
    scp: Option<Scopes>,
}

/// Scopes as RFC 8693 writes them, or as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    Text(String),
    List(Vec<String>),
}

impl Scopes {
    fn split(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => text.split_ascii_whitespace().collect(),
            Self::List(list) => list.iter().map(String::as_str).collect(),
        }
    }
}

/// Who a verified token speaks for, and until when.
#[derive(Debug)]
pub(crate) struct Identity {
    subject: Arc<str>,
    /// The subject, if it is an id of a user.
    user: Option<Uuid>,
    scopes: Vec<Box<str>>,
    /// Both with the skew.
    begins: u64,
    ends: u64,
}

impl Identity {
    /// Reads verified claims. `None` if the subject cannot be one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the library has checked the numbers")]
    pub(super) fn read(claims: &Claims) -> Option<Self> {
        let Claims { sub, exp, nbf, scope, scp } = claims;
        if sub.is_empty() || sub.chars().count() > MAX_SUBJECT || sub.chars().any(char::is_control) {
            return None;
        }
        let scopes = scope.iter().chain(scp).flat_map(Scopes::split).map(Into::into).collect();
        let begins = nbf.map_or(0, |nbf| (nbf.round() as u64).saturating_sub(SKEW));
        let ends = (exp.round() as u64).saturating_add(SKEW);
        Some(Self { subject: sub.as_str().into(), user: parse_id(sub), scopes, begins, ends })
    }

    /// Whether the token is valid at this time, in seconds since 1970.
    pub(super) fn is_valid_at(&self, now: u64) -> bool {
        (self.begins..=self.ends).contains(&now)
    }

    pub(super) fn subject(&self) -> Arc<str> {
        self.subject.clone()
    }

    /// The subject, if it is an id of a user.
    pub(super) fn user(&self) -> Option<Uuid> {
        self.user
    }

    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|known| **known == *scope)
    }

    /// Whether the token has `scope` for everybody's data.
    pub(super) fn has_any(&self, scope: &str) -> bool {
        self.scopes.iter().any(|known| known.strip_suffix(":any") == Some(scope))
    }
}

/// Who calls, and whose data this caller may see or change. A handler extracts it.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    subject: Option<Arc<str>>,
    owner: Option<Uuid>,
}

impl Caller {
    /// A caller who may touch only what belongs to `owner`; everything without one.
    pub(super) fn new(identity: &Identity, owner: Option<Uuid>) -> Self {
        Self { subject: Some(identity.subject.clone()), owner }
    }

    /// The token's subject. `None` with `AUTH=off`, where everybody may do everything.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The user whose data alone this caller may see and change. `None` if that is everybody's.
    pub fn owner(&self) -> Option<Uuid> {
        self.owner
    }

    /// Whether the caller may see or change what belongs to `owner`.
    pub fn may_touch(&self, owner: Uuid) -> bool {
        self.owner.is_none_or(|own| own == owner)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    /// [`crate::http::request`] has put it there.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
