//! The developers' commands: `cargo xtask --help`.

#![allow(clippy::disallowed_methods, reason = "these commands run any SQL, in no service")]

mod bench;
mod dist;
mod faults;
mod fuzz;
mod prepare;
mod services;
mod split_demo;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for developers of this project.
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
    /// Stops a running `up`, and can delete its data
    Down(up::DownOptions),
    /// Prints a token of the local issuer of a running `up --auth`
    Token(up::TokenOptions),
    /// Renews the services' offline query data: compiles each service as its own role
    Prepare(prepare::Options),
    /// Measures the services in release mode, and compares them with pgbench and minimal servers
    Bench(bench::Options),
    /// Builds what a release has: static programs, an SBOM of each, completions and man pages of splitctl, checksums
    Dist(dist::Options),
    /// Moves a service to its own database under load, and checks every acknowledged write
    SplitDemo(split_demo::Options),
    /// Lets Postgres, the other service, clients and clocks fail, and checks every acknowledged write
    Faults(faults::Options),
    /// Sends both services valid and invalid requests by their `OpenAPI` documents (schemathesis, from `PyPI`)
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(options) => up::up(&options).map(|()| ExitCode::SUCCESS),
        Command::Down(options) => up::down(&options).map(|()| ExitCode::SUCCESS),
        Command::Token(options) => up::token(&options).map(|()| ExitCode::SUCCESS),
        Command::Prepare(options) => prepare::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::SplitDemo(options) => split_demo::run(&options),
        Command::Faults(options) => faults::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
