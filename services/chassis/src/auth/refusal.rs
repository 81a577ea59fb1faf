//! Why a caller is refused, as a problem with the challenge of RFC 6750.

use axum::http::{HeaderValue, StatusCode, header};

use crate::http::problem::Problem;

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request has no bearer token.
    NoToken,
    /// The token is not accepted, for this reason.
    BadToken(&'static str),
    /// The key of the token is unknown, and the issuer's keys cannot be read now.
    NoKeys,
    /// The token lacks this scope.
    Scope(String),
    /// What the path names belongs to somebody else.
    Hidden,
}

impl Refusal {
    /// The problem, on a route that needs `scope`.
    pub(crate) fn problem(&self, scope: Option<&str>) -> Problem {
        let needed = scope.map(|scope| format!(" with the scope {scope}")).unwrap_or_default();
        match self {
            Self::NoToken => {
                let detail = format!("send a token{needed}, as `Authorization: Bearer <token>`");
                challenge(StatusCode::UNAUTHORIZED, detail, "Bearer")
            }
            Self::BadToken(reason) => {
                let detail = format!("the token is not accepted, since {reason}: send another token{needed}");
                let header = format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
                challenge(StatusCode::UNAUTHORIZED, detail, &header)
            }
            Self::NoKeys => Problem::unavailable("the keys of the tokens' issuer cannot be read now"),
            Self::Scope(scope) => {
                let header = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                challenge(StatusCode::FORBIDDEN, format!("the token lacks the scope {scope}"), &header)
            }
            Self::Hidden => Problem::not_found("there is nothing with this id"),
        }
    }
}

fn challenge(status: StatusCode, detail: String, challenge: &str) -> Problem {
    let value = HeaderValue::from_str(challenge).expect("scopes and reasons are visible ASCII");
    Problem::new(status, detail).header(header::WWW_AUTHENTICATE, value)
}
