//! Configuration: one clap struct for each program, with a variable for every field. `--help` is its documentation.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser};

use crate::events::EventsConfig;
use crate::telemetry::LogConfig;

/// The exit code for an unusable configuration.
pub const EXIT_CONFIG: u8 = 2;

/// The variables that every service has.
#[derive(Debug, Clone, Args)]
pub struct ServiceOptions {
    /// Events.
    #[command(flatten)]
    pub events: EventsConfig,
    /// the most connections to the database
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value = "10", value_parser = connections)]
    pub database_max_connections: usize,
    /// Logging.
    #[command(flatten)]
    pub log: LogConfig,
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

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err("must be a whole number from 1 to 1000".to_owned()),
    }
}
