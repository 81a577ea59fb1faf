//! Logging to standard error.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Args, ValueEnum};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, reload};

use crate::resource::Resource;

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

/// The client of RabbitMQ logs whole messages, with what they say of people. It also returns its errors, which are logged.
fn read(directives: &str) -> EnvFilter {
    EnvFilter::new(format!("lapin=off,{directives}"))
}

/// What is logged, while the program runs.
#[derive(Clone)]
pub struct LogLevel(Arc<Level>);

struct Level {
    directives: Mutex<String>,
    apply: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl LogLevel {
    fn new(directives: &str, apply: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Level { directives: Mutex::new(directives.to_owned()), apply: Box::new(apply) }))
    }

    /// The directives.
    pub fn directives(&self) -> String {
        self.0.directives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by these directives from now on.
    ///
    /// # Errors
    /// What they are instead of directives.
    pub fn set(&self, directives: &str) -> Result<(), String> {
        let directives = filter(directives.trim())?;
        let mut current = self.0.directives.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.apply)(read(&directives)).map_err(|error| format!("cannot be applied: {error}"))?;
        tracing::info!(from = *current, to = directives, "the log level was set");
        *current = directives;
        Ok(())
    }
}

/// Starts logging. Lines for machines name the `process`; people know which one they look at. If the level `is_adjustable`,
/// it can be changed, which costs a lock for each line and span.
pub fn init(config: &LogConfig, process: &Resource, is_adjustable: bool) -> Option<LogLevel> {
    if is_adjustable {
        return Some(init_adjustable(config, process));
    }
    let builder = tracing_subscriber::fmt().with_env_filter(read(&config.rust_log)).with_writer(std::io::stderr);
    match config.format() {
        LogFormat::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(true).with_span_list(false);
            builder.map_event_format(|format| Named::new(format, process)).init();
        }
    }
    None
}

fn init_adjustable(config: &LogConfig, process: &Resource) -> LogLevel {
    let builder = tracing_subscriber::fmt().with_env_filter(read(&config.rust_log)).with_writer(std::io::stderr);
    match config.format() {
        LogFormat::Pretty => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LogLevel::new(&config.rust_log, move |filter| handle.reload(filter))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(true).with_span_list(false);
            let builder = builder.map_event_format(|format| Named::new(format, process)).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LogLevel::new(&config.rust_log, move |filter| handle.reload(filter))
        }
    }
}

/// A format whose JSON objects end with the name of the process.
struct Named<F> {
    format: F,
    /// The members.
    process: String,
}

impl<F> Named<F> {
    fn new(format: F, process: &Resource) -> Self {
        Self { format, process: process.members() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Named<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let object = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writeln!(writer, "{object}{}}}", self.process)
    }
}

impl LogConfig {
    fn format(&self) -> LogFormat {
        let usual = || if std::io::stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
        self.log_format.unwrap_or_else(usual)
    }
}
