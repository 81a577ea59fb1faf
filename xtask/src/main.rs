//! The developers' commands: `cargo xtask --help`.

mod bench;
mod prepare;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for those who work on this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything: Postgres, its migrations, and both services, until Ctrl-C
    Up(up::UpOptions),
    /// Stops an `up` that runs elsewhere, and can delete its data
    Down(up::DownOptions),
    /// Renews the services' offline query data, asking a database as each service's role
    Prepare(prepare::Options),
    /// Measures the services' release build, beside pgbench with the same SQL and a minimal server, on a private Postgres
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(options) => up::up(&options).map(|()| ExitCode::SUCCESS),
        Command::Down(options) => up::down(&options).map(|()| ExitCode::SUCCESS),
        Command::Prepare(options) => prepare::run(&options),
        Command::Bench(options) => bench::run(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
