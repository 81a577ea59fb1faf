//! Configuration: one clap struct per program, with a variable for every field. `--help` is its documentation.

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Exit code for a configuration that cannot be used.
pub const EXIT_CONFIG: u8 = 2;

/// Reads `.env`, which never overrides the environment, then the environment and the arguments.
///
/// # Errors
/// The exit code to end with, after the message was printed: 0 after `--help`, 2 for a missing or malformed variable.
pub fn load<C: Parser>() -> Result<C, ExitCode> {
    match dotenvy::dotenv() {
        Ok(_) => {}
        Err(error) if error.not_found() => {}
        // The error's text may repeat a line of the file, which may hold a password.
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
            // Nothing is left to tell if standard output is gone.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            // Built, or clap cannot write the names of its arguments.
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

/// One sentence that names the variable.
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

/// Reads an IP address and a port.
///
/// # Errors
/// What would be right.
pub fn socket_address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8081".to_owned())
}

/// Reads the size of a connection pool.
///
/// # Errors
/// What would be right.
pub fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err("must be a whole number from 1 to 1000".to_owned()),
    }
}
