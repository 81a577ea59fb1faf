//! `cargo xtask bench`: builds the benchmark and the servers in release mode, and runs the benchmark.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace::build;

pub use bench::Options;

/// The features of all members that connect to a broker.
const KAFKA: [&str; 3] = ["bench/kafka", "orders/kafka", "users/kafka"];
const RABBITMQ: [&str; 2] = ["orders/rabbitmq", "users/rabbitmq"];

/// Returns only if the benchmark cannot start.
///
/// # Errors
/// A failed build, or a program that cannot be run.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut features = Vec::new();
    features.extend(options.kafka.then_some(KAFKA).into_iter().flatten());
    features.extend(options.rabbitmq.then_some(RABBITMQ).into_iter().flatten());
    let programs = build(&["users", "orders", "splitctl", "bench", "bench-peer", "bench-sqlx"], true, &features)?;
    let bench = programs.join("bench");
    // The benchmark replaces this process, so Ctrl-C and the exit code are its own. It reads the same options.
    let error = Command::new(&bench).args(std::env::args_os().skip(2)).exec();
    Err(error).with_context(|| format!("{} cannot be run", bench.display()))
}
