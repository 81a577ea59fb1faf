//! The token that this service shows to other services: from a file that is read again when it changes, or from an issuer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;

use super::credentials::{Credentials, Fetched, bearer};
use crate::throttle;
use crate::web::Web;

/// How old what was read of the file may be.
const FRESH: Duration = Duration::from_secs(1);

/// The token that this service shows to others. Clones share what was read.
#[derive(Clone, Default)]
pub struct ServiceToken(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    None,
    File(Arc<TokenFile>),
    Fetched(Arc<Fetched>),
}

struct TokenFile {
    path: PathBuf,
    read: Mutex<Option<(Instant, Option<HeaderValue>)>>,
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Kind::None => "no token",
            Kind::File(_) => "a token in a file",
            Kind::Fetched(_) => "a token of an issuer",
        })
    }
}

impl ServiceToken {
    /// The token in this file.
    pub fn in_file(path: &Path) -> Self {
        Self(Kind::File(Arc::new(TokenFile { path: path.to_owned(), read: Mutex::default() })))
    }

    /// The token that an issuer gives for these credentials.
    pub(super) fn fetched(web: Web, credentials: Credentials) -> Self {
        Self(Kind::Fetched(Arc::new(Fetched::new(web, credentials))))
    }

    /// Checks the file that it needs, and begins to fetch it if it comes from an issuer.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn begin(&self) -> Result<(), String> {
        match &self.0 {
            Kind::None => Ok(()),
            Kind::File(file) => file.load().map(drop),
            Kind::Fetched(fetched) => {
                fetched.check()?;
                fetched.begin();
                Ok(())
            }
        }
    }

    /// The value of `Authorization`. While there is no newer one, it is the last one that was there.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        match &self.0 {
            Kind::None => None,
            Kind::File(file) => file.header(),
            Kind::Fetched(fetched) => fetched.header().await,
        }
    }

    /// Notes that another service has refused the token.
    pub(super) fn note_refused(&self) {
        if let Kind::Fetched(fetched) = &self.0 {
            fetched.note_refused();
        }
    }
}

impl TokenFile {
    fn header(&self) -> Option<HeaderValue> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &*read {
            Some((at, value)) if at.elapsed() < FRESH => return value.clone(),
            Some((_, value)) => value.clone(),
            None => None,
        };
        // A few hundred bytes, from a local disk or from memory.
        let value = match self.load() {
            Ok(value) => Some(value),
            Err(error) => {
                if let Some(omitted) = throttle::line(&error) {
                    tracing::warn!(error, omitted, "the last token of this service is used on");
                }
                known
            }
        };
        *read = Some((Instant::now(), value.clone()));
        value
    }

    fn load(&self) -> Result<HeaderValue, String> {
        let path = self.path.display();
        let text = std::fs::read_to_string(&self.path).map_err(|error| format!("SERVICE_TOKEN_FILE {path}: {error}"))?;
        bearer(text.trim()).ok_or_else(|| format!("SERVICE_TOKEN_FILE {path} does not contain one token"))
    }
}
