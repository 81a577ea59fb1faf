//! A password as Postgres stores it, at the least cost of a login.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::unistd::User;
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::{digest, pbkdf2};
use uuid::Uuid;

use super::owner::give;

/// Writes it into a file in `folder`, from which initdb takes it instead of the password.
pub(super) fn write_verifier(folder: &Path, password: &str, user: Option<&User>) -> io::Result<PathBuf> {
    let path = folder.join("verifier");
    fs::write(&path, verifier(password))?;
    give(&path, user)?;
    Ok(path)
}

/// What Postgres takes in a password's place (RFC 5802), with one iteration. Postgres' 4096 cost both ends
/// 10 ms of CPU at each login in a debug build, and tests log in thousands of times.
fn verifier(password: &str) -> String {
    let salt = Uuid::new_v4().into_bytes();
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, NonZeroU32::MIN, &salt, password.as_bytes(), &mut salted);
    let key = Key::new(HMAC_SHA256, &salted);
    let stored = digest::digest(&digest::SHA256, sign(&key, b"Client Key").as_ref());
    let [salt, stored, server] =
        [&salt[..], stored.as_ref(), sign(&key, b"Server Key").as_ref()].map(|part| BASE64_STANDARD.encode(part));
    format!("SCRAM-SHA-256$1:{salt}${stored}:{server}")
}
