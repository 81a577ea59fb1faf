//! What each route asks of its callers: the one table that the router, the OpenAPI document and docs/security.md show.

use std::sync::Arc;

use axum::http::Method;
use uuid::Uuid;

use super::identity::{Caller, Identity};
use super::refusal::Refusal;

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The method.
    pub method: &'static str,
    /// The template of the path.
    pub path: &'static str,
    /// What the caller must have.
    pub needs: Needs,
}

/// What a caller must have. A scope with `:any` behind it, such as `things:read:any`, goes beyond the caller's own data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// No token.
    Nothing,
    /// Any token, and none if the service listens on loopback only.
    Token,
    /// A scope, which is for everybody's data.
    Scope(&'static str),
    /// A scope, for what has the token's subject as its id in the path.
    OwnId(&'static str),
    /// A scope, for what belongs to the token's subject. The handler checks it: [`Caller::may_touch`].
    Own(&'static str),
    /// A scope, for what belongs to nobody yet. A user makes no other users.
    New(&'static str),
}

impl Access {
    /// The route `method path`.
    pub const fn new(method: &'static str, path: &'static str, needs: Needs) -> Self {
        Self { method, path, needs }
    }
}

/// The routes that every service has besides its own.
pub const COMMON: [Access; 5] = [
    Access::new("GET", "/health/live", Needs::Nothing),
    Access::new("GET", "/health/ready", Needs::Nothing),
    Access::new("GET", "/metrics", Needs::Token),
    Access::new("GET", "/openapi.json", Needs::Token),
    Access::new("GET", "/docs", Needs::Token),
];

impl Needs {
    /// The scope.
    pub fn scope(self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Token => None,
            Self::Scope(scope) | Self::OwnId(scope) | Self::Own(scope) | Self::New(scope) => Some(scope),
        }
    }

    /// Whose data a token with the scope reaches, in a word.
    pub fn whose(self) -> &'static str {
        match self {
            Self::Nothing | Self::Token => "–",
            Self::Scope(_) => "everybody's",
            Self::OwnId(_) | Self::Own(_) => "own",
            Self::New(_) => "new",
        }
    }

    /// Judges a caller. `id` is the one in the path, if the request has one there.
    pub(crate) fn judge(self, identity: &Arc<Identity>, id: impl FnOnce() -> Option<Uuid>) -> Result<Caller, Refusal> {
        let Some(scope) = self.scope() else { return Ok(Caller::new(identity, identity.user())) };
        if identity.has_any(scope) {
            return Ok(Caller::new(identity, None));
        }
        if !identity.has(scope) {
            return Err(Refusal::Scope(scope.to_owned()));
        }
        let any = || Refusal::Scope(format!("{scope}:any"));
        match self {
            Self::Nothing | Self::Token | Self::Scope(_) => Ok(Caller::new(identity, None)),
            Self::New(_) if identity.user().is_none() => Ok(Caller::new(identity, None)),
            Self::New(_) => Err(any()),
            Self::Own(_) | Self::OwnId(_) => {
                // What is no user owns nothing, so it can only be meant to reach everybody's.
                let user = identity.user().ok_or_else(any)?;
                // Without an id that can be read, nothing is known to be the caller's.
                if self == Self::OwnId(scope) && id() != Some(user) {
                    return Err(Refusal::Hidden);
                }
                Ok(Caller::new(identity, Some(user)))
            }
        }
    }
}

/// What the table of a service, or the one of all services, says of the route `method path`.
pub(crate) fn find(table: &[Access], method: &Method, path: &str) -> Option<Needs> {
    table
        .iter()
        .chain(&COMMON)
        .find(|access| access.path == path && access.method == method.as_str())
        .map(|access| access.needs)
}
