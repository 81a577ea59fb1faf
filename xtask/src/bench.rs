//! `cargo xtask bench`: builds the benchmark and what it measures for speed, and becomes it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::workspace::build;

/// How to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// A table, or one JSON object
    #[arg(long, default_value = "text")]
    format: Format,
    /// How long each job is measured in a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How many rounds; their medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Measure instead what each way for orders to learn of a customer costs: view, HTTP, gRPC, replica
    #[arg(long)]
    ways: bool,
    /// Measure the events' way by Kafka as well, which needs a build with librdkafka
    #[arg(long, requires = "ways")]
    kafka: bool,
    /// Draw that into this file
    #[arg(long, requires = "ways")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// The features of all who speak with a broker.
const KAFKA: &[&str] = &["bench/kafka", "orders/kafka", "users/kafka"];

/// Returns only if it cannot start.
///
/// # Errors
/// That, or a build that fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = build(&["users", "orders", "bench", "bench-peer"], true, if options.kafka { KAFKA } else { &[] })?;
    let mut bench = Command::new(programs.join("bench"));
    let format = match options.format {
        Format::Text => "text",
        Format::Json => "json",
    };
    bench.args(["--format", format, "--seconds", &options.seconds.to_string(), "--rounds", &options.rounds.to_string()]);
    if options.ways {
        bench.arg("--ways");
    }
    if let Some(svg) = &options.svg {
        bench.arg("--svg").arg(svg);
    }
    // In our place, so that Ctrl-C and the exit code are its own.
    Err(bench.exec()).with_context(|| format!("{} cannot be run", programs.join("bench").display()))
}
