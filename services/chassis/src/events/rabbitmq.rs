//! The variables of RabbitMQ.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// The variables of RabbitMQ.
#[derive(Debug, Clone, Args)]
pub struct RabbitmqConfig {
    /// the RabbitMQ server that this service publishes its events to, and with `EVENTS_VIA=rabbitmq` reads the other's from
    /// (`amqps://user:password@host/virtual-host`)
    #[arg(long, env = "RABBITMQ_URL", hide_env_values = true, value_parser = url)]
    rabbitmq_url: Option<RabbitmqUrl>,
    /// a file that contains this URL; it is read at each connection
    #[arg(long, env = "RABBITMQ_URL_FILE")]
    rabbitmq_url_file: Option<PathBuf>,
    /// a PEM file with the authorities whose certificates the server may have [default: the system's]
    #[arg(long, env = "RABBITMQ_CA_FILE")]
    rabbitmq_ca_file: Option<PathBuf>,
    /// how long an event stays in a stream that the relay creates, such as 7d [default: for ever]
    #[arg(long, env = "RABBITMQ_MAX_AGE", value_parser = age)]
    rabbitmq_max_age: Option<Duration>,
    /// how many bytes of events stay in a stream that the relay creates [default: all]
    #[arg(long, env = "RABBITMQ_MAX_BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    rabbitmq_max_bytes: Option<u64>,
}

/// A RabbitMQ server, and how it is used.
#[derive(Debug, Clone)]
pub struct RabbitmqSettings {
    /// The server's URL.
    pub url: RabbitmqUrl,
    /// The authorities whose certificates the server may have.
    pub ca_file: Option<PathBuf>,
    /// How long an event stays in a new stream.
    pub max_age: Option<Duration>,
    /// How many bytes stay in a new stream.
    pub max_bytes: Option<u64>,
}

/// Where the URL of the server is. It contains a password, so it is never shown.
#[derive(Clone)]
pub enum RabbitmqUrl {
    /// Here.
    Text(String),
    /// In a file, which may change.
    File(PathBuf),
}

impl fmt::Debug for RabbitmqUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => formatter.write_str("RABBITMQ_URL"),
            Self::File(path) => path.fmt(formatter),
        }
    }
}

impl RabbitmqConfig {
    /// What the variables say; `None` if they name no server.
    ///
    /// # Errors
    /// If they name it twice.
    pub(super) fn settings(&self) -> Result<Option<RabbitmqSettings>, String> {
        let url = match (&self.rabbitmq_url, &self.rabbitmq_url_file) {
            (None, None) => return Ok(None),
            (Some(url), None) => url.clone(),
            (None, Some(path)) => RabbitmqUrl::File(path.clone()),
            (Some(_), Some(_)) => return Err("RABBITMQ_URL and RABBITMQ_URL_FILE are both set: unset one".to_owned()),
        };
        let (ca_file, max_age, max_bytes) = (self.rabbitmq_ca_file.clone(), self.rabbitmq_max_age, self.rabbitmq_max_bytes);
        Ok(Some(RabbitmqSettings { url, ca_file, max_age, max_bytes }))
    }
}

/// Without the value in the message: it contains a password.
fn url(text: &str) -> Result<RabbitmqUrl, &'static str> {
    if text.starts_with("amqp://") || text.starts_with("amqps://") {
        Ok(RabbitmqUrl::Text(text.to_owned()))
    } else {
        Err("must be a URL such as amqps://user:password@host/virtual-host")
    }
}

fn age(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(age) if age.as_secs() > 0 => Ok(age),
        _ => Err("must be a time of at least a second, such as 12h or 7d"),
    }
}
