//! The keys of an issuer, from a JWK Set (RFC 7517), and the tokens that were found to be signed by them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::identity::{Claims, Identity, SKEW};
use super::refusal::Refusal;

/// The most tokens that are remembered.
const MOST: usize = 10_000;

/// What tokens must say beside their times.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) issuer: Option<String>,
    pub(super) audience: String,
}

/// The hash of a token.
pub(super) type Hash = [u8; 32];

/// The hash under which a token is remembered.
pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token).into()
}

/// The keys of a JWK Set. The tokens that they have signed are remembered with them, and end with them.
pub(super) struct Keys {
    text: Bytes,
    keys: Vec<Key>,
    verified: RwLock<HashMap<Hash, Arc<Identity>>>,
}

/// A key, and the one algorithm that fits its type.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

/// Why a token is not verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// The keys lack the token's.
    UnknownKey,
    /// Another key would not help.
    Bad(&'static str),
}

impl From<Unverified> for Refusal {
    fn from(unverified: Unverified) -> Self {
        match unverified {
            Unverified::UnknownKey => Self::BadToken("its key is not one of the issuer's"),
            Unverified::Bad(reason) => Self::BadToken(reason),
        }
    }
}

impl Keys {
    /// Reads a JWK Set. Keys that cannot be used are left out.
    pub(super) fn read(text: Bytes, expected: &Expected) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(&text)?;
        let keys = set.keys.into_iter().filter_map(|key| Key::read(&serde_json::from_value(key).ok()?, expected));
        Ok(Self { keys: keys.collect(), text, verified: RwLock::default() })
    }

    /// Whether they come from this text.
    pub(super) fn are_from(&self, text: &Bytes) -> bool {
        self.text == text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The identity of a token that was verified before, and is still valid.
    pub(super) fn remembered(&self, hash: &Hash) -> Option<Arc<Identity>> {
        let known = self.verified.read().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).filter(|identity| identity.is_valid_at(get_current_timestamp())).cloned()
    }

    /// Verifies a token, and remembers it.
    pub(super) fn verify(&self, token: &str, hash: Hash) -> Result<Arc<Identity>, Unverified> {
        const SHAPE: Unverified = Unverified::Bad("it is not a JWT signed by RS256, ES256 or EdDSA");
        let header = decode_header(token).map_err(|_| SHAPE)?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(SHAPE);
        }
        let key = self.find(header.kid.as_deref(), header.alg)?;
        let claims: Claims =
            decode(token, &key.key, &key.validation).map_err(|error| Unverified::Bad(reason(error.kind())))?.claims;
        let identity = Identity::read(&claims).ok_or(Unverified::Bad("its subject cannot be one"))?;
        let identity = Arc::new(identity);
        self.remember(hash, identity.clone());
        Ok(identity)
    }

    /// A token without a key id has the only key of its algorithm.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Unverified> {
        let mut named = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        if named.peek().is_none() {
            return Err(Unverified::UnknownKey);
        }
        let mut fitting = named.filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Unverified::Bad("its algorithm is not the one of its key")),
            (Some(_), Some(_)) => Err(Unverified::Bad("it does not say which key has signed it")),
        }
    }

    fn remember(&self, hash: Hash, identity: Arc<Identity>) {
        let mut known = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            let now = get_current_timestamp();
            known.retain(|_, identity| identity.is_valid_at(now));
        }
        // Forgotten tokens are verified again.
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(hash, identity);
    }
}

impl Key {
    /// `None` if it is not a key that signs tokens by an algorithm that services accept.
    fn read(jwk: &Jwk, expected: &Expected) -> Option<Self> {
        let (algorithm, stated) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
            && common.key_algorithm.is_none_or(|algorithm| algorithm == stated);
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs)?;
        Some(Self { id: common.key_id.clone(), algorithm, key, validation: validation(algorithm, expected) })
    }
}

fn validation(algorithm: Algorithm, expected: &Expected) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = SKEW;
    validation.validate_nbf = true;
    validation.set_audience(&[&expected.audience]);
    let mut required = vec!["exp", "sub", "aud"];
    if let Some(issuer) = &expected.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// In words that a header can contain.
fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is from another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::MissingRequiredClaim(claim) => match &**claim {
            "exp" => "it has no exp",
            "sub" => "it has no sub",
            "aud" => "it has no aud",
            "iss" => "it has no iss",
            _ => "it lacks a claim",
        },
        ErrorKind::InvalidSignature | ErrorKind::Base64(_) => "its signature is not right",
        _ => "its claims cannot be read",
    }
}
