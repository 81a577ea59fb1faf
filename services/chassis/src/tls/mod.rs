//! TLS for the connections of clients, and for calls to other services. Its files are read again when they change.

mod accepting;
mod calling;
mod files;
mod itself;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, version};

pub(crate) use accepting::encrypt;
pub use accepting::{Listener, Serving};
pub(crate) use calling::{Calling, Connector};
pub(crate) use files::Reloading;
use files::{authorities, identity};
use itself::Own;

/// The versions of TLS.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// The variables of TLS.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsConfig {
    /// a PEM file with the service's certificate and the ones that lead to its authority: HTTP and gRPC are served over TLS,
    /// and the other service is shown it when it asks
    #[arg(long, env = "TLS_CERT_FILE")]
    tls_cert_file: Option<PathBuf>,
    /// a PEM file with the certificate's private key
    #[arg(long, env = "TLS_KEY_FILE")]
    tls_key_file: Option<PathBuf>,
    /// a PEM file with authorities: each client must show a certificate of one of them
    #[arg(long, env = "TLS_CLIENT_CA_FILE")]
    tls_client_ca_file: Option<PathBuf>,
    /// a PEM file with the authorities whose certificate another service may have [default: the system's]
    #[arg(long, env = "TLS_CA_FILE")]
    tls_ca_file: Option<PathBuf>,
}

/// The protocol inside the encrypted connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// As the client chooses.
    Either,
}

impl Protocol {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
            Self::Either => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

impl TlsConfig {
    /// How connections of clients are encrypted; `None` if they are not.
    ///
    /// # Errors
    /// If a variable lacks another one, or a file cannot be used.
    pub fn serving(&self) -> Result<Option<Serving>, String> {
        let Some((cert, key)) = self.identity()? else {
            return match &self.tls_client_ca_file {
                Some(_) => Err("TLS_CLIENT_CA_FILE is set, but TLS_CERT_FILE is not: set both, or none".to_owned()),
                None => Ok(None),
            };
        };
        let client_ca = self.tls_client_ca_file.clone();
        let files = [Some(cert.clone()), Some(key.clone()), client_ca.clone()].into_iter().flatten().collect();
        let load = move || load_serving(&cert, &key, client_ca.as_ref());
        Ok(Some(Serving(Arc::new(Reloading::new(files, load)?))))
    }

    /// How calls to `https` addresses are encrypted.
    ///
    /// # Errors
    /// If a variable lacks another one, or a file cannot be used.
    pub(crate) fn calling(&self) -> Result<Calling, String> {
        let identity = self.identity()?;
        let ca = self.tls_ca_file.clone();
        let files = identity.iter().flat_map(|(cert, key)| [cert, key]).chain(&ca).cloned().collect();
        let load = move || load_calling(identity.as_ref(), ca.as_ref());
        Ok(Calling(Arc::new(Reloading::new(files, load)?)))
    }

    /// How the program's own service is called; `None` if its connections are not encrypted. The caller trusts the
    /// certificate in the service's file alone, and shows it too.
    ///
    /// # Errors
    /// If a variable lacks another one, or a file cannot be used.
    pub(crate) fn calling_itself(&self) -> Result<Option<Calling>, String> {
        let Some((cert, key)) = self.identity()? else { return Ok(None) };
        let load = move || load_calling_itself(&cert, &key);
        Ok(Some(Calling(Arc::new(Reloading::new(Vec::new(), load)?))))
    }

    /// Checks the variables for calls, even if none is made to an `https` address.
    ///
    /// # Errors
    /// If a variable lacks another one.
    pub fn identity(&self) -> Result<Option<(PathBuf, PathBuf)>, String> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (Some(_), None) => Err("TLS_CERT_FILE is set, but TLS_KEY_FILE is not: set both, or none".to_owned()),
            (None, Some(_)) => Err("TLS_KEY_FILE is set, but TLS_CERT_FILE is not: set both, or none".to_owned()),
        }
    }
}

/// The same for each protocol.
struct PerProtocol<T> {
    http1: Arc<T>,
    http2: Arc<T>,
    either: Arc<T>,
}

impl<T: Clone> PerProtocol<T> {
    fn new(config: T, set: impl Fn(&mut T, Protocol)) -> Self {
        let with = |protocol| {
            let mut config = config.clone();
            set(&mut config, protocol);
            Arc::new(config)
        };
        Self { http1: with(Protocol::Http1), http2: with(Protocol::Http2), either: with(Protocol::Either) }
    }

    fn get(&self, protocol: Protocol) -> Arc<T> {
        match protocol {
            Protocol::Http1 => self.http1.clone(),
            Protocol::Http2 => self.http2.clone(),
            Protocol::Either => self.either.clone(),
        }
    }
}

fn load_serving(cert: &Path, key: &Path, client_ca: Option<&PathBuf>) -> Result<PerProtocol<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = match client_ca {
        None => Arc::new(NoClientAuth),
        Some(file) => {
            let roots = Arc::new(authorities("TLS_CLIENT_CA_FILE", file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            verifier.map_err(|error| format!("TLS_CLIENT_CA_FILE {}: {error}", file.display()))?
        }
    };
    let (chain, private) = identity(cert, key)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private)
        .map_err(|error| unfit(cert, key, &error))?;
    Ok(PerProtocol::new(config, |config, protocol| config.alpn_protocols = protocol.alpn()))
}

fn load_calling(own: Option<&(PathBuf, PathBuf)>, ca: Option<&PathBuf>) -> Result<PerProtocol<ClientConfig>, String> {
    let builder = trusting("TLS_CA_FILE", ca)?;
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let (chain, private) = identity(cert, key)?;
            builder.with_client_auth_cert(chain, private).map_err(|error| unfit(cert, key, &error))?
        }
    };
    Ok(PerProtocol::new(config, |config, protocol| config.alpn_protocols = protocol.alpn()))
}

/// A configuration of calls that still lacks the caller's own certificate.
type Trusting = ConfigBuilder<ClientConfig, WantsClientCert>;

/// The start of a configuration for calls that trust the authorities in the file that `variable` names, or the system's.
///
/// # Errors
/// A sentence that names the variable, if there is no authority.
pub(crate) fn trusting(variable: &str, ca: Option<&PathBuf>) -> Result<Trusting, String> {
    let roots = match ca {
        Some(file) => authorities(variable, file)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(format!(
                    "the system has no certificate authorities: install them, or name a file in {variable}"
                ));
            }
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_protocol_versions(VERSIONS);
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots))
}

fn load_calling_itself(cert: &Path, key: &Path) -> Result<PerProtocol<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let (chain, private) = identity(cert, key)?;
    let own = Own { certificate: chain[0].clone(), algorithms };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(own))
        .with_client_auth_cert(chain, private)
        .map_err(|error| unfit(cert, key, &error))?;
    Ok(PerProtocol::new(config, |config, protocol| config.alpn_protocols = protocol.alpn()))
}

fn unfit(cert: &Path, key: &Path, error: &rustls::Error) -> String {
    format!("TLS_CERT_FILE {} and TLS_KEY_FILE {} do not fit: {error}", cert.display(), key.display())
}
