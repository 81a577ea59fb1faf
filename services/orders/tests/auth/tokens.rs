//! Which tokens are accepted.

use dev::http::{Answer, Client};
use dev::issuer::{SigningKey, encode, jwks, now};
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{AUDIENCE, ISSUER, KeysFile, claims, open, services};

async fn call(client: &Client, token: &str) -> Answer {
    client.bearing(token).get("/users?limit=1").await
}

/// The claims with one of them changed, or removed.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("service", "users:read:any");
    match value {
        Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
        value => claims[name] = value,
    }
    claims
}

#[tokio::test]
async fn tokens_of_each_algorithm_are_accepted_with_their_scopes_in_any_form() {
    let keys = [SigningKey::rs256("rsa"), SigningKey::es256("ec"), SigningKey::eddsa("ed")];
    let file = KeysFile::new(&keys.each_ref());
    let (users, _, _database) = services(file.auth().await);
    for key in &keys {
        for claims in [
            claims("service", "users:read:any"),
            claims("service", "other users:read:any"),
            with("aud", json!(["other", AUDIENCE])),
            with("exp", json!(now() - 30)),
            with("nbf", json!(now() + 30)),
            json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": now() + 9, "scp": ["users:read:any"] }),
            json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": now() + 9, "scp": "x users:read:any" }),
        ] {
            call(&users, &key.token(&claims)).await.expect(200);
            // Without an id, it is the only key of its algorithm.
            call(&users, &key.sign(&json!({ "alg": key.algorithm() }), &claims)).await.expect(200);
        }
    }
}

#[tokio::test]
async fn any_other_token_is_refused() {
    let (rsa, ec, ed) = (SigningKey::rs256("rsa"), SigningKey::es256("ec"), SigningKey::eddsa("ed"));
    let file = KeysFile::new(&[&rsa, &ec, &ed]);
    let (users, _, _database) = services(file.auth().await);
    let good = claims("service", "users:read:any");
    let token = ed.token(&good);
    call(&users, &token).await.expect(200);

    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let (header, payload) = message.split_once('.').expect("three parts");
    let secret = |secret: &[u8], header: Value| {
        let message = format!("{}.{payload}", encode(header.to_string()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", encode(signature))
    };
    let public = ed.jwk()["x"].as_str().expect("a key").to_owned();
    let other = SigningKey::eddsa("ed");
    let mut altered = signature.as_bytes().to_vec();
    altered[10] = if altered[10] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).expect("text");
    let bad = [
        ("no token", "nonsense".to_owned()),
        ("two parts", message.to_owned()),
        ("no signature", format!("{message}.")),
        ("a part of the signature", format!("{message}.{}", &signature[..40])),
        ("another signature", format!("{message}.{altered}")),
        ("four parts", format!("{token}.x")),
        ("none", format!("{}.{payload}.", encode(json!({ "alg": "none" }).to_string()))),
        ("None with a key", format!("{}.{payload}.{signature}", encode(json!({ "alg": "None", "kid": "ed" }).to_string()))),
        ("HMAC by the public key", secret(public.as_bytes(), json!({ "alg": "HS256", "kid": "ed" }))),
        ("HMAC by the set", secret(jwks([&ed]).to_string().as_bytes(), json!({ "alg": "HS256" }))),
        ("other claims", format!("{header}.{}.{signature}", encode(claims("admin", "users:read:any").to_string()))),
        ("another key of that name", other.token(&good)),
        ("an unknown key", SigningKey::eddsa("unknown").token(&good)),
        ("a key of another type", ed.sign(&json!({ "alg": "EdDSA", "kid": "rsa" }), &good)),
        ("another algorithm of the key", rsa.sign(&json!({ "alg": "RS512", "kid": "rsa" }), &good)),
        ("PSS", rsa.sign(&json!({ "alg": "PS256", "kid": "rsa" }), &good)),
        ("a key in the header", other.sign(&json!({ "alg": "EdDSA", "jwk": other.jwk() }), &good)),
        ("unknown and critical", ed.sign(&json!({ "alg": "EdDSA", "kid": "ed", "crit": ["x"], "x": 1 }), &good)),
        ("another audience", ed.token(&with("aud", json!("others")))),
        ("no audience", ed.token(&with("aud", Value::Null))),
        ("another issuer", ed.token(&with("iss", json!("https://other.example")))),
        ("no issuer", ed.token(&with("iss", Value::Null))),
        ("expired", ed.token(&with("exp", json!(now() - 90)))),
        ("no end", ed.token(&with("exp", Value::Null))),
        ("an end that is no number", ed.token(&with("exp", json!("tomorrow")))),
        ("not yet", ed.token(&with("nbf", json!(now() + 90)))),
        ("no subject", ed.token(&with("sub", Value::Null))),
        ("an empty subject", ed.token(&with("sub", json!("")))),
        ("a subject with a NUL", ed.token(&with("sub", json!("a\0b")))),
        ("a scope that is none", ed.token(&with("scope", json!(7)))),
    ];
    for (what, token) in bad {
        let answer = call(&users, &token).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""), "{what}");
        let problem = answer.problem(401, "");
        assert!(problem["detail"].as_str().expect("text").contains("users:read"), "{what}: {problem}");
    }
}

#[tokio::test]
async fn a_request_without_a_token_learns_how_to_send_one() {
    let key = SigningKey::eddsa("one");
    let (users, _, _database) = services(KeysFile::new(&[&key]).auth().await);
    for call in [
        users.get("/users"),
        users.get("/users").header("authorization", "Basic YTpi"),
        users.get("/users").header("authorization", "Bearer"),
    ] {
        let answer = call.await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let problem = answer.problem(401, "");
        assert!(problem["detail"].as_str().expect("text").contains("users:read"), "{problem}");
    }
    let token = key.token(&claims("service", "users:read:any"));
    users.get("/users").header("authorization", format!("bEARER  {token}")).await.expect(200);
    let twice = users.bearing(&token).get("/users").header("authorization", format!("Bearer {token}"));
    assert!(twice.await.expect(401).header("www-authenticate").contains("invalid_token"));
    // A token in the address would be in logs.
    users.get(format!("/users?access_token={token}")).await.expect(401);
}

#[tokio::test]
async fn a_set_of_keys_may_contain_others() {
    let key = SigningKey::es256("one");
    let mut set = jwks([&key]);
    let keys = set["keys"].as_array_mut().expect("keys");
    keys.push(json!({ "kty": "oct", "kid": "secret", "k": encode("secret"), "alg": "HS256" }));
    keys.push(json!({ "kty": "EC", "kid": "other curve", "crv": "secp256k1", "x": "AA", "y": "AA" }));
    keys.push(json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA" }));
    keys.push(json!(7));
    let mut encrypting = SigningKey::rs256("encrypting").jwk();
    encrypting["use"] = json!("enc");
    keys.push(encrypting);
    let file = KeysFile::new(&[]);
    std::fs::write(&file.path, set.to_string()).expect("written");
    let (users, _, _database) = services(file.auth().await);
    let good = claims("service", "users:read:any");
    call(&users, &key.token(&good)).await.expect(200);
    call(&users, &SigningKey::rs256("encrypting").token(&good)).await.expect(401);
    // A file without a key, or none at all, is a mistake of who has set the variable.
    for text in ["{\"keys\": []}", "{}", "no JSON"] {
        std::fs::write(&file.path, text).expect("written");
        let error = file.try_auth().await.expect_err("refused");
        assert!(error.contains("AUTH_JWKS_FILE"), "{error}");
    }
    let error = open(&[("auth", "jwt"), ("auth-audience", "a"), ("auth-jwks-file", "/nowhere")]).await.expect_err("refused");
    assert!(error.contains("AUTH_JWKS_FILE"), "{error}");
}
