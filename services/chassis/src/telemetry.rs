//! Logging to standard error.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For machines: one object a line.
    Json,
}

/// The variables of logging.
#[derive(Debug, Clone, Args)]
pub struct LogConfig {
    /// The format of log lines [default: pretty on a terminal, else json]
    #[arg(long, env = "LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// What to log: a level, or directives such as `info,chassis=debug` (which logs every request)
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = filter)]
    rust_log: String,
}

fn filter(directives: &str) -> Result<String, String> {
    match EnvFilter::try_new(directives) {
        Ok(_) => Ok(directives.to_owned()),
        Err(error) => Err(format!("is not a list of log directives: {error}")),
    }
}

/// Starts logging.
pub fn init(config: &LogConfig) {
    let format = config
        .log_format
        .unwrap_or_else(|| if std::io::stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json });
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&config.rust_log)).with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => subscriber.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
    }
}
