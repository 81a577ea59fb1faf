//! The variables that say who may call.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Auth;
use super::keys::Expected;
use super::source::Source;
use crate::remote::{ServiceToken, TokenOptions};
use crate::web::{Web, parse_url};

/// The variables that say who may call.
#[derive(Debug, Clone, Args)]
pub struct AuthConfig {
    /// whether callers must show a token; with `off`, the service listens on loopback only
    #[arg(long, env = "AUTH", default_value = "off")]
    auth: Mode,
    /// `yes`: with AUTH=off, listen on other addresses as well, because a gateway authenticates
    #[arg(long, env = "ALLOW_UNAUTHENTICATED", default_value = "no")]
    allow_unauthenticated: YesNo,
    /// the issuer of tokens, as in their claim `iss`; its keys are found by `OpenID` discovery
    #[arg(long, env = "AUTH_ISSUER")]
    auth_issuer: Option<String>,
    /// where the issuer's keys are, a JWK Set; then nothing is discovered
    #[arg(long, env = "AUTH_JWKS_URL")]
    auth_jwks_url: Option<String>,
    /// a file with the issuer's keys, read again when it changes
    #[arg(long, env = "AUTH_JWKS_FILE")]
    auth_jwks_file: Option<PathBuf>,
    /// a PEM file with the authorities whose certificate the issuer may have, read again when it changes [default: the
    /// system's]
    #[arg(long, env = "AUTH_CA_FILE")]
    auth_ca_file: Option<PathBuf>,
    /// whom tokens are for, as in their claim `aud`
    #[arg(long, env = "AUTH_AUDIENCE")]
    auth_audience: Option<String>,
    /// What this service shows to others.
    #[command(flatten)]
    token: TokenOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Off,
    Jwt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

impl AuthConfig {
    /// The token that this service shows to others.
    ///
    /// # Errors
    /// A sentence that names the variable that is missing or wrong.
    pub fn service_token(&self) -> Result<ServiceToken, String> {
        self.token.token(self.auth_issuer.as_deref(), self.auth_ca_file.as_ref())
    }

    /// What the variables ask for, on a service that listens on these addresses, each beside its variable, and has the
    /// address `admin` for operators. The keys are read from then on.
    ///
    /// # Errors
    /// A sentence that names the variable that is missing or wrong.
    pub async fn open(&self, addresses: &[(&str, SocketAddr)], admin: Option<SocketAddr>) -> Result<Auth, String> {
        self.service_token()?.begin()?;
        let is_public = |(_, address): &(&str, SocketAddr)| !address.ip().to_canonical().is_loopback();
        let public = addresses.iter().copied().find(is_public);
        let open = public.or(admin.map(|address| ("ADMIN_ADDR", address)).filter(is_public));
        match (self.auth, open) {
            (Mode::Off, Some((variable, address))) if self.allow_unauthenticated == YesNo::No => Err(format!(
                "AUTH is off, and {variable} is {address}, which other machines can reach: set AUTH=jwt, or \
                 ALLOW_UNAUTHENTICATED=yes if a gateway authenticates all callers, or {variable} to a loopback address"
            )),
            (Mode::Off, _) => Ok(Auth::off()),
            (Mode::Jwt, _) => {
                let audience = self.auth_audience.clone().filter(|audience| !audience.is_empty());
                let audience = audience.ok_or("AUTH_AUDIENCE is not set: with AUTH=jwt, it says whom tokens are for")?;
                let expected = Expected { issuer: self.auth_issuer.clone(), audience };
                Auth::jwt(self.source()?, expected, public.is_none()).await
            }
        }
    }

    fn source(&self) -> Result<Source, String> {
        match (&self.auth_jwks_file, &self.auth_jwks_url, &self.auth_issuer) {
            (Some(_), Some(_), _) => Err("AUTH_JWKS_FILE and AUTH_JWKS_URL are both set: keys come from one of them".into()),
            (Some(path), None, _) => Ok(Source::File(path.clone())),
            (None, Some(url), _) => {
                let url = parse_url(url).map_err(|shape| format!("AUTH_JWKS_URL {shape}"))?;
                Ok(Source::Url(Web::new(self.auth_ca_file.as_ref())?, url))
            }
            (None, None, Some(issuer)) => {
                parse_url(issuer).map_err(|shape| format!("AUTH_ISSUER {shape}"))?;
                Ok(Source::Issuer(Web::new(self.auth_ca_file.as_ref())?, issuer.clone()))
            }
            (None, None, None) => {
                Err("with AUTH=jwt, one of AUTH_ISSUER, AUTH_JWKS_URL and AUTH_JWKS_FILE must say where keys are".into())
            }
        }
    }
}
