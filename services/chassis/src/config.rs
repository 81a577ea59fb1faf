//! Configuration: one clap struct for each program, with a variable for every field. `--help` is its documentation.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser};

use crate::auth::AuthConfig;
use crate::events::EventsConfig;
use crate::http::cors::Cors;
use crate::http::limits::{Limits, duration};
use crate::resource::{Resource, ResourceConfig};
use crate::telemetry::LogConfig;
use crate::tls::TlsConfig;
use crate::traces::{Traces, TracesConfig};

/// The exit code for an unusable configuration.
pub const EXIT_CONFIG: u8 = 2;

/// The variables that every service has.
#[derive(Debug, Clone, Args)]
pub struct ServiceOptions {
    /// Who may call.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// Events.
    #[command(flatten)]
    pub events: EventsConfig,
    /// Limits on clients.
    #[command(flatten)]
    pub limits: Limits,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsConfig,
    /// an address for operators alone: metrics, documents, gRPC's reflection and the log level are there, and need no token
    /// [default: with the other routes, without the log level]
    #[arg(long, env = "ADMIN_ADDR", value_parser = socket_address)]
    pub admin_addr: Option<SocketAddr>,
    /// Pages of other origins.
    #[command(flatten)]
    pub cors: Cors,
    /// after a stop signal, how long the service still answers while it is not ready, so that balancers turn to others
    #[arg(long, env = "SHUTDOWN_DELAY", default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// how long the service waits for its database and its migrations after it was started; then it exits with code 1
    /// [default: for ever]
    #[arg(long, env = "STARTUP_TIMEOUT", value_parser = duration)]
    pub startup_timeout: Option<Duration>,
    /// the most connections to the database
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value = "10", value_parser = from_1_to_1000)]
    pub database_max_connections: usize,
    /// the longest wait for a free connection to the database; then a request is answered 503
    #[arg(long, env = "DATABASE_QUEUE_TIMEOUT", default_value = "200ms", value_parser = duration)]
    pub database_queue_timeout: Duration,
    /// how old a read from a standby may be; a standby that is older is not read
    #[arg(long, env = "READ_MAX_LAG", default_value = "5s", value_parser = duration)]
    pub read_max_lag: Duration,
    /// the threads that work [default: one for each processor]
    #[arg(long, env = "TOKIO_WORKER_THREADS", value_parser = from_1_to_1000)]
    pub worker_threads: Option<usize>,
    /// Logging.
    #[command(flatten)]
    pub log: LogConfig,
    /// What the process is called.
    #[command(flatten)]
    pub resource: ResourceConfig,
    /// Traces.
    #[command(flatten)]
    pub traces: TracesConfig,
}

impl ServiceOptions {
    /// This process, which runs the program of `C`.
    pub fn process<C: CommandFactory>(&self) -> &'static Resource {
        self.resource.describe(&C::command())
    }

    /// Traces this process, which runs the program of `C`, as the variables say.
    ///
    /// # Errors
    /// If the files of TLS cannot be used.
    pub fn begin_traces<C: CommandFactory>(&self) -> Result<Traces, String> {
        self.traces.begin(self.process::<C>(), &self.tls)
    }
}

/// Reads the arguments, the environment, and the file `.env`, in this order of precedence.
///
/// # Errors
/// The program's exit code, after a message was printed: 0 after `--help`, 2 for a missing or malformed variable.
pub fn load<C: Parser>() -> Result<C, ExitCode> {
    match dotenvy::dotenv() {
        Ok(_) => {}
        Err(error) if error.not_found() => {}
        // The error may quote a line of the file, and the line may contain a password.
        Err(dotenvy::Error::LineParse(..)) => {
            eprintln!("error: .env has a line that is not NAME=value");
            return Err(ExitCode::from(EXIT_CONFIG));
        }
        Err(error) => {
            eprintln!("error: .env cannot be read: {error}");
            return Err(ExitCode::from(EXIT_CONFIG));
        }
    }
    C::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // If standard output is closed, nothing can be printed.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            // clap knows the names of the arguments only once the command is built.
            let mut command = C::command();
            command.build();
            match explain(&command, &error) {
                Some(sentence) => eprintln!("error: {sentence}"),
                None => eprint!("{error}"),
            }
            ExitCode::from(EXIT_CONFIG)
        }
    })
}

/// A sentence that names the variable.
fn explain(command: &clap::Command, error: &clap::Error) -> Option<String> {
    let argument = match error.get(ContextKind::InvalidArg)? {
        ContextValue::Strings(arguments) => arguments.first()?,
        ContextValue::String(argument) => argument,
        _ => return None,
    };
    let argument = command.get_arguments().find(|candidate| &candidate.to_string() == argument)?;
    let variable = argument.get_env()?.to_string_lossy();
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
            Some(format!("{variable} is not set: {meaning}"))
        }
        ErrorKind::InvalidValue => {
            let known: Vec<_> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            let value = error.get(ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
            Some(format!("{variable} is `{value}`, but this program knows: {}", known.join(", ")))
        }
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            Some(format!("{variable} {reason}"))
        }
        _ => None,
    }
}

/// The exit code of a program that ended so. An error is printed first.
pub fn exit_code(ended: Result<ExitCode, String>) -> ExitCode {
    ended.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::from(EXIT_CONFIG)
    })
}

/// Reads an IP address and a port.
///
/// # Errors
/// The form it must have.
pub fn socket_address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8081".to_owned())
}

fn from_1_to_1000(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err("must be a whole number from 1 to 1000".to_owned()),
    }
}
