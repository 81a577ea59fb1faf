//! The options of the benchmark, for `cargo xtask bench` and for the program that it starts.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the services.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    /// A table, or one JSON object
    #[arg(long, default_value = "text")]
    pub format: Format,
    /// Seconds that each job is measured in a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How many rounds; the report shows their medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Measure instead what each way for orders to read a customer costs: view, HTTP, gRPC, replica
    #[arg(long)]
    pub ways: bool,
    /// Measure the delivery of events by Kafka as well, which needs a build with librdkafka
    #[arg(long, requires = "ways")]
    pub kafka: bool,
    /// Draw the result of `--ways` into this file
    #[arg(long, requires = "ways")]
    pub svg: Option<PathBuf>,
}

/// The form of the report.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}
