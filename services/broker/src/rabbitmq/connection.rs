//! A connection to the server, and why there is none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::events::{RabbitmqSettings, RabbitmqUrl};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use tokio::time::timeout;

/// How long the server may take to accept a connection, and to answer a question.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// After two of these intervals without a sign of life, either end gives the connection up, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("{0:?} has no URL such as amqps://user:password@host/virtual-host")]
    Url(RabbitmqUrl),
    #[error("{} has no certificate in PEM", .0.display())]
    Authorities(PathBuf, #[source] pem::Error),
    #[error("TLS cannot be used")]
    Tls(#[source] io::Error),
    #[error("RabbitMQ refuses the user {0}, or keeps it from the virtual host")]
    Refused(String, #[source] lapin::Error),
    #[error("RabbitMQ at {0} cannot be reached")]
    Server(String, #[source] lapin::Error),
    #[error("RabbitMQ at {0} did not answer within {ANSWER:?}")]
    Late(String),
}

/// Checks a URL that is not in a file.
pub(super) fn check(settings: &RabbitmqSettings) -> Result<(), String> {
    match &settings.url {
        RabbitmqUrl::File(_) => Ok(()),
        url @ RabbitmqUrl::Text(text) => parse(text, url).map(drop).map_err(|error| error.to_string()),
    }
}

/// Connects as `name`, which the server shows to its operators.
pub(super) async fn connect(settings: &RabbitmqSettings, name: String) -> Result<Connection, ConnectError> {
    let text = match &settings.url {
        RabbitmqUrl::Text(text) => text.clone(),
        // At each connection, because the password may have changed.
        RabbitmqUrl::File(path) => read(path)?,
    };
    let mut uri = parse(text.trim(), &settings.url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let (user, server) = (uri.authority.userinfo.username.clone(), format!("{}:{}", uri.authority.host, uri.authority.port));
    let tls = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => Some(tls(settings.ca_file.as_deref())?),
    };
    let runtime = lapin::runtime::default_runtime().map_err(|error| ConnectError::Server(server.clone(), error))?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let (host, port) = (uri.authority.host, uri.authority.port);
            let stream = AsyncTcpStream::connect(&runtime, runtime.to_socket_addrs((host.clone(), port))).await?;
            match &tls {
                None => Ok(stream),
                Some(tls) => Ok(stream.into_rustls(tls, &host).await?),
            }
        },
        properties,
    );
    match timeout(ANSWER, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) if is(&error, &AMQPSoftError::ACCESSREFUSED) => Err(ConnectError::Refused(user, error)),
        Ok(Err(error)) => Err(ConnectError::Server(server, error)),
        Err(_) => Err(ConnectError::Late(server)),
    }
}

/// Waits for the server's answer, but not for ever: a connection may die without a sign.
pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, lapin::Error> {
    timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Whether the server's answer is this error.
pub(super) fn is(error: &lapin::Error, expected: &AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == AMQPErrorKind::Soft(expected.clone()))
}

fn parse(text: &str, url: &RabbitmqUrl) -> Result<AMQPUri, ConnectError> {
    // The parser's message may quote the password.
    text.parse().map_err(|_| ConnectError::Url(url.clone()))
}

fn read(path: &Path) -> Result<String, ConnectError> {
    fs::read_to_string(path).map_err(|error| ConnectError::File(path.to_owned(), error))
}

/// TLS that trusts the authorities in the file alone; without a file, those of the system.
fn tls(ca_file: Option<&Path>) -> Result<RustlsConnector, ConnectError> {
    let config = match ca_file {
        None => RustlsConnectorConfig::new_with_native_certs().map_err(ConnectError::Tls)?,
        Some(path) => {
            let pem = read(path)?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let certificates = certificates.map_err(|error| ConnectError::Authorities(path.to_owned(), error))?;
            if certificates.is_empty() {
                return Err(ConnectError::Authorities(path.to_owned(), pem::Error::NoItemsFound));
            }
            RustlsConnectorConfig::default().with_parsable_certificates(certificates)
        }
    };
    config.connector_with_no_client_auth().map_err(ConnectError::Tls)
}
