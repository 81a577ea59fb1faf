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
    /// Measure instead what each way for orders to read a customer costs, and how fast events travel to its replica
    #[arg(long)]
    pub ways: bool,
    /// How many events `--ways` publishes and consumes at once
    #[arg(long, default_value_t = 300_000, requires = "ways", value_parser = clap::value_parser!(u64).range(1000..))]
    pub events: u64,
    /// Measure instead what requests and pages of the feed cost at these numbers of events, such as 10000,1000000
    #[arg(long, value_delimiter = ',', conflicts_with = "ways")]
    pub sizes: Vec<u64>,
    /// Measure instead what a move by splitctl costs: copy, verify, and the pause of its switches
    #[arg(long, conflicts_with_all = ["ways", "sizes"])]
    pub moves: bool,
    /// The rows of the large table of `--moves`
    #[arg(long, default_value_t = 5_000_000)]
    pub rows: u64,
    /// Measure Kafka as well, which needs a build with librdkafka: a broker of Maven's jars, else librdkafka's mock
    #[arg(long, requires = "ways")]
    pub kafka: bool,
    /// Measure RabbitMQ as well, which needs the program `rabbitmq-server`
    #[arg(long, requires = "ways")]
    pub rabbitmq: bool,
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
