//! The issuer of `up --auth`: a key in the data folder, which signs the tokens of `cargo xtask token`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use dev::issuer::{SigningKey, jwks, now};
use serde_json::json;

use super::folder::{self, ISSUER, TOKEN};
use crate::services::Service;

/// The claims `iss` and `aud` of its tokens.
const NAME: &str = "urn:cargo-xtask-up";
const AUDIENCE: &str = "shop";
/// Every scope, for everybody's data.
const ALL: &str = "users:read:any users:write:any orders:read:any orders:write:any events:read";
/// How long the services' own tokens last: longer than `up` runs. The next one makes new ones.
const SERVICE_HOURS: u64 = 24 * 365;

/// Flags of `token`.
#[derive(Debug, Args)]
pub struct TokenOptions {
    /// A scope, such as `orders:read`; may be repeated, or contain several
    #[arg(long, required = true)]
    scope: Vec<String>,
    /// Whom the token speaks for: the id of a user, or the name of a service
    #[arg(long, default_value = "tour")]
    sub: String,
    /// How many hours it is valid
    #[arg(long, default_value = "1")]
    hours: u64,
    /// The `--data-dir` of `up` [default: .data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Prints a token of the issuer that `up --auth` has made.
///
/// # Errors
/// If there is no issuer.
pub fn token(options: &TokenOptions) -> Result<()> {
    let folder = folder::path(options.data_dir.as_deref());
    let path = key_path(&folder);
    if !path.exists() {
        bail!("{} has no issuer: run `cargo xtask up --auth` first", folder.display());
    }
    println!("{}", Issuer { key: read_key(&path)?, folder }.token(&options.sub, &options.scope.join(" "), options.hours));
    Ok(())
}

/// The local issuer.
pub struct Issuer {
    key: SigningKey,
    folder: PathBuf,
}

impl Issuer {
    /// The issuer in the data folder, made now if there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = key_path(folder);
        if !path.exists() {
            write_private(&path, &SigningKey::new_pkcs8())?;
        }
        let issuer = Self { key: read_key(&path)?, folder: folder.to_owned() };
        let keys = issuer.jwks_path();
        fs::write(&keys, jwks([&issuer.key]).to_string()).with_context(|| keys.display().to_string())?;
        Ok(issuer)
    }

    /// The variables that have a service trust the issuer, and show a token of its own.
    pub fn variables(&self, service: Service) -> Result<Vec<(&'static str, String)>> {
        let token = self.folder.join(format!("{}{TOKEN}", service.name));
        write_private(&token, &self.token(service.name, ALL, SERVICE_HOURS))?;
        Ok(vec![
            ("AUTH", "jwt".to_owned()),
            ("AUTH_ISSUER", NAME.to_owned()),
            ("AUTH_AUDIENCE", AUDIENCE.to_owned()),
            ("AUTH_JWKS_FILE", self.jwks_path().display().to_string()),
            ("SERVICE_TOKEN_FILE", token.display().to_string()),
        ])
    }

    /// A token that may do everything, for the demo data.
    pub fn token_for_all(&self) -> String {
        self.token("cargo xtask up", ALL, 1)
    }

    fn token(&self, subject: &str, scope: &str, hours: u64) -> String {
        let end = now().saturating_add(hours.saturating_mul(3600));
        self.key.token(&json!({ "iss": NAME, "aud": AUDIENCE, "sub": subject, "scope": scope, "exp": end }))
    }

    fn jwks_path(&self) -> PathBuf {
        self.folder.join(format!("{ISSUER}jwks.json"))
    }
}

fn key_path(folder: &Path) -> PathBuf {
    folder.join(format!("{ISSUER}key"))
}

fn read_key(path: &Path) -> Result<SigningKey> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    SigningKey::from_pkcs8("local", &text).with_context(|| format!("{} is not a key: delete it", path.display()))
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    writeln!(file, "{text}").with_context(|| path.display().to_string())
}
