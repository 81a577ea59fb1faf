//! Logs in to the database. A password in a file can be changed while the service runs: when a login is refused, the file is
//! read again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::redact::redact;
use crate::url::{DatabaseUrl, InvalidUrl, Parsed, parse};

/// How long a refused login is tried again: the password may change in the database first, and a moment later in the file.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// One state of the URL.
struct Login {
    text: String,
    parsed: Parsed,
}

impl Login {
    fn parse(text: String) -> Result<Arc<Self>, InvalidUrl> {
        let parsed = parse(&text)?;
        Ok(Arc::new(Self { text, parsed }))
    }
}

/// The logins that are known.
pub(crate) struct Logins {
    url: DatabaseUrl,
    known: Mutex<Known>,
}

struct Known {
    current: Arc<Login>,
    /// A role has one password at a time, and the file may have a new one too early.
    before: Option<Arc<Login>>,
    /// Whether to wait for another password. Once that was in vain, refusals are returned at once.
    is_patient: bool,
}

impl Logins {
    pub(crate) fn new(url: DatabaseUrl) -> Result<Self, InvalidUrl> {
        let current = Login::parse(url.read()?)?;
        let is_patient = url.may_change();
        Ok(Self { url, known: Mutex::new(Known { current, before: None, is_patient }) })
    }

    /// Opens a connection with the options that `adjust` makes of the URL's.
    pub(crate) async fn connect(
        &self,
        adjust: impl Fn(PgConnectOptions) -> PgConnectOptions,
    ) -> Result<PgConnection, sqlx::Error> {
        let (current, is_patient) = self.with(|known| (known.current.clone(), known.is_patient));
        let mut outcome = open(&current, &adjust).await;
        let deadline = Instant::now() + if is_patient { PATIENCE } else { Duration::ZERO };
        while self.url.may_change() && outcome.as_ref().is_err_and(is_refused) {
            for login in self.candidates() {
                outcome = open(&login, &adjust).await;
                match &outcome {
                    Ok(_) => self.use_from_now_on(login),
                    Err(error) if is_refused(error) => continue,
                    Err(_) => {}
                }
                return outcome;
            }
            if Instant::now() >= deadline {
                self.with(|known| known.is_patient = false);
                break;
            }
            sleep(PAUSE).await;
        }
        outcome
    }

    /// What the file has now, if it can be used, the login before, and the current one, which may be valid again.
    fn candidates(&self) -> Vec<Arc<Login>> {
        let read = match self.url.read().and_then(Login::parse) {
            Ok(login) => Some(login),
            Err(error) => {
                tracing::debug!(url = %self.url, %error, "the file has no login now");
                None
            }
        };
        let (current, before) = self.with(|known| (known.current.clone(), known.before.clone()));
        let mut candidates: Vec<Arc<Login>> = Vec::new();
        for login in [read, before, Some(current)].into_iter().flatten() {
            if candidates.iter().all(|candidate| candidate.text != login.text) {
                candidates.push(login);
            }
        }
        candidates
    }

    fn use_from_now_on(&self, login: Arc<Login>) {
        let changed = self.with(|known| {
            known.is_patient = true;
            let changed = known.current.text != login.text;
            if changed {
                known.before = Some(std::mem::replace(&mut known.current, login));
            }
            changed
        });
        if changed {
            tracing::info!(url = %self.url, "the login was refused; the other one that is known is used from now on");
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// TLS failed although nobody asked for it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate of a database on another machine is verified, since the URL has no sslmode: name its authority with \
     sslrootcert=FILE, or set sslmode=require (encrypted, unverified) or sslmode=disable"
)]
struct Unverified(#[source] sqlx::Error);

async fn open(login: &Login, adjust: &impl Fn(PgConnectOptions) -> PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    // Boxed: what happens rarely should not make the future of every request larger.
    let opened = Box::pin(PgConnection::connect_with(&adjust(login.parsed.options.clone()))).await;
    opened.map_err(|error| {
        let error = redact(error, &login.parsed.values);
        let is_of_tls = match &error {
            sqlx::Error::Tls(_) => true,
            sqlx::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
            _ => false,
        };
        if is_of_tls && login.parsed.is_verified_by_default { sqlx::Error::Tls(Unverified(error).into()) } else { error }
    })
}

/// Whether Postgres refused the role or its password.
fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("28P01" | "28000")))
}
