//! An issuer of tokens for tests and for `cargo xtask up --auth`: keys, the JWK Set that shows them, and signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

/// ring makes no RSA keys. Nothing but tests trusts this one.
const RSA: &[u8] = include_bytes!("issuer/rsa-for-tests.p8");

/// A key that signs tokens.
pub struct SigningKey {
    id: String,
    pair: Pair,
}

enum Pair {
    Rs256(Box<RsaKeyPair>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl SigningKey {
    /// The tests' RSA key, under this id.
    ///
    /// # Panics
    /// Never: the key can be read.
    pub fn rs256(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Pair::Rs256(Box::new(RsaKeyPair::from_pkcs8(RSA).expect("a key"))) }
    }

    /// A new key on the curve P-256.
    ///
    /// # Panics
    /// If the system has no random numbers.
    pub fn es256(id: &str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random numbers");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key");
        Self { id: id.to_owned(), pair: Pair::Es256(pair) }
    }

    /// A new Ed25519 key.
    ///
    /// # Panics
    /// If the system has no random numbers.
    pub fn eddsa(id: &str) -> Self {
        Self::from_pkcs8(id, &Self::new_pkcs8()).expect("a key")
    }

    /// A new Ed25519 key, as a text to keep in a file (PKCS #8, base64).
    ///
    /// # Panics
    /// If the system has no random numbers.
    pub fn new_pkcs8() -> String {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random numbers");
        URL_SAFE_NO_PAD.encode(document)
    }

    /// The key of [`SigningKey::new_pkcs8`]. `None` for any other text.
    pub fn from_pkcs8(id: &str, text: &str) -> Option<Self> {
        let document = URL_SAFE_NO_PAD.decode(text.trim()).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(&document).ok()?;
        Some(Self { id: id.to_owned(), pair: Pair::EdDsa(pair) })
    }

    /// The name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rs256(_) => "RS256",
            Pair::Es256(_) => "ES256",
            Pair::EdDsa(_) => "EdDSA",
        }
    }

    /// Its public part, a JWK.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rs256(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
            Pair::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Pair::EdDsa(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) }),
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm(), "kid": self.id, "typ": "JWT" }), claims)
    }

    /// A token with these claims and this header, whatever it says.
    ///
    /// # Panics
    /// If the system has no random numbers.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("random numbers");
                signature
            }
            Pair::Es256(pair) => pair.sign(&random, message.as_bytes()).expect("random numbers").as_ref().to_vec(),
            Pair::EdDsa(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", encode(signature))
    }
}

/// The JWK Set of these keys.
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> Value {
    let keys: Vec<Value> = keys.into_iter().map(SigningKey::jwk).collect();
    json!({ "keys": keys })
}

/// Base64 as tokens have it.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
///
/// # Panics
/// If the clock is before that.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}
