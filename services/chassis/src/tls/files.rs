//! The files of TLS, and what is made of them. They are looked at when a connection begins, once a second at most.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How long the files are trusted not to have changed.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A value that is made of files.
pub(crate) struct Reloading<T> {
    files: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    looked: Instant,
    /// What the files were when they were last loaded, or could not be.
    seen: Vec<Stamp>,
}

/// Changes with every change of a file: its device and number, its size, when it changed. `None` if there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl<T> Reloading<T> {
    /// Loads the value from `files`.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let seen = stamps(&files);
        let state = State { value: Arc::new(load()?), looked: Instant::now(), seen };
        Ok(Self { files, load: Box::new(load), state: Mutex::new(state) })
    }

    /// The value. If the files have changed and cannot be used, it stays, and the log says why.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= TRUSTED_FOR {
            state.looked = Instant::now();
            let now = stamps(&self.files);
            if now != state.seen {
                state.seen = now;
                match (self.load)() {
                    Ok(value) => {
                        state.value = Arc::new(value);
                        tracing::info!("the files of TLS have changed: new connections use them");
                    }
                    Err(error) => {
                        tracing::error!(error, "the files of TLS have changed and cannot be used: the ones before stay");
                    }
                }
            }
        }
        state.value.clone()
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(formatter)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: Metadata| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    files.iter().map(|path| fs::metadata(path).ok().map(stamp)).collect()
}

/// The certificates in the file of `variable`, as authorities.
pub(super) fn authorities(variable: &str, file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(variable, file)? {
        roots.add(certificate).map_err(|error| format!("{variable} {}: {error}", file.display()))?;
    }
    Ok(roots)
}

/// A certificate with those that lead to its authority, and its private key.
pub(super) fn identity(cert: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let private = PrivateKeyDer::from_pem_slice(&read("TLS_KEY_FILE", key)?)
        .map_err(|_| format!("TLS_KEY_FILE {} has no private key in PEM", key.display()))?;
    Ok((certificates("TLS_CERT_FILE", cert)?, private))
}

fn certificates(variable: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(variable, file)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{variable} {} has no certificate in PEM", file.display())),
    }
}

fn read(variable: &str, file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{variable} {} cannot be read: {error}", file.display()))
}
