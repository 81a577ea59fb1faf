//! The variables that say which token this service shows to other services.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clap::Args;

use super::credentials::{Credentials, Endpoint};
use super::token::ServiceToken;
use crate::web::{Web, parse_url};

/// The token that this service shows to other services: in a file, or fetched from an issuer.
#[derive(Debug, Clone, Args)]
pub struct TokenOptions {
    /// a file with the token that this service shows to other services, read again when it changes
    #[arg(long, env = "SERVICE_TOKEN_FILE")]
    service_token_file: Option<PathBuf>,
    /// the id of this service at the issuer, which gives it that token by client credentials
    #[arg(long, env = "SERVICE_TOKEN_CLIENT_ID")]
    service_token_client_id: Option<String>,
    /// a file with the secret to that id, read whenever a token is fetched
    #[arg(long, env = "SERVICE_TOKEN_CLIENT_SECRET_FILE")]
    service_token_client_secret_file: Option<PathBuf>,
    /// where the issuer gives out tokens [default: as `AUTH_ISSUER` says]
    #[arg(long, env = "SERVICE_TOKEN_URL")]
    service_token_url: Option<String>,
    /// the scopes to ask the issuer for, separated by spaces
    #[arg(long, env = "SERVICE_TOKEN_SCOPE")]
    service_token_scope: Option<String>,
    /// the parameter `audience`, for an issuer that asks whom the token is for
    #[arg(long, env = "SERVICE_TOKEN_AUDIENCE")]
    service_token_audience: Option<String>,
    /// All calls of a process share it.
    #[arg(skip)]
    token: Arc<OnceLock<ServiceToken>>,
}

impl TokenOptions {
    /// The token that they ask for. `issuer` is whose tokens are accepted here; `ca` has its authorities.
    ///
    /// # Errors
    /// A sentence that names the variable that is missing or wrong.
    pub(crate) fn token(&self, issuer: Option<&str>, ca: Option<&PathBuf>) -> Result<ServiceToken, String> {
        if let Some(known) = self.token.get() {
            return Ok(known.clone());
        }
        let token = self.choose(issuer, ca)?;
        Ok(self.token.get_or_init(|| token).clone())
    }

    fn choose(&self, issuer: Option<&str>, ca: Option<&PathBuf>) -> Result<ServiceToken, String> {
        match (&self.service_token_file, &self.service_token_client_id, &self.service_token_client_secret_file) {
            (Some(_), Some(_), _) => {
                Err("SERVICE_TOKEN_FILE and SERVICE_TOKEN_CLIENT_ID are both set: the token comes from one of them".into())
            }
            (Some(path), None, _) => Ok(ServiceToken::in_file(path)),
            (None, Some(id), Some(secret_file)) => {
                let credentials = Credentials {
                    id: id.clone(),
                    secret_file: secret_file.clone(),
                    endpoint: self.endpoint(issuer)?,
                    scope: self.service_token_scope.clone(),
                    audience: self.service_token_audience.clone(),
                };
                Ok(ServiceToken::fetched(Web::new(ca)?, credentials))
            }
            (None, Some(_), None) => {
                Err("SERVICE_TOKEN_CLIENT_SECRET_FILE is not set: SERVICE_TOKEN_CLIENT_ID needs a secret".into())
            }
            (None, None, Some(_)) => {
                Err("SERVICE_TOKEN_CLIENT_ID is not set: it says whose secret SERVICE_TOKEN_CLIENT_SECRET_FILE has".into())
            }
            (None, None, None) => Ok(ServiceToken::default()),
        }
    }

    fn endpoint(&self, issuer: Option<&str>) -> Result<Endpoint, String> {
        match (&self.service_token_url, issuer) {
            (Some(url), _) => parse_url(url).map(Endpoint::Url).map_err(|shape| format!("SERVICE_TOKEN_URL {shape}")),
            (None, Some(issuer)) => match parse_url(issuer) {
                Ok(_) => Ok(Endpoint::Issuer(issuer.to_owned())),
                Err(shape) => Err(format!("AUTH_ISSUER {shape}")),
            },
            (None, None) => {
                Err("SERVICE_TOKEN_URL is not set: it says where tokens are given out, if AUTH_ISSUER does not".into())
            }
        }
    }
}
