//! One file a command: its flags, and what it prints. What it does stands beside this folder.

mod audit;
mod grants;
mod init;
mod moving;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::exit;
use crate::moving::Place;

/// The way out of a shared Postgres: shows what couples the owners of its tables, and moves one owner's tables to a database
/// of their own, online, verified, and with a way back.
///
/// Exit codes: 0 done; 1 looked at, and the answer is no; 2 it could not be done, or nobody knows.
#[derive(Debug, Parser)]
#[command(name = "splitctl", version)]
struct Arguments {
    /// The manifest
    #[arg(long, global = true, default_value = "split.toml")]
    manifest: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drafts a manifest from a live database
    Init(init::Init),
    /// Shows what couples the owners: in the catalog, in their statements, in their transactions
    ///
    /// Exit code 1 if anything couples them that no borrowing of the manifest explains.
    Audit(audit::Audit),
    /// Shows or applies the roles and grants that the manifest implies
    ///
    /// Exit code 1 if the database has drifted from them, unless --apply mends it.
    Grants(grants::Grants),
    /// Looks for everything that would stop or surprise a move; changes nothing
    Plan(moving::Look),
    /// Copies an owner's tables to its target, and has every change follow
    Copy(moving::Act),
    /// Compares the rows of both sides while writes go on
    Verify(moving::Verify),
    /// Takes the foreign keys off that join what moves and what stays
    Detach(moving::Act),
    /// Puts them back
    Attach(moving::Act),
    /// Has the tables live in the target: writers wait for some milliseconds
    Cutover(moving::Switch),
    /// Has them live in the source again: any time before `complete`
    Rollback(moving::Switch),
    /// Drops the old tables: the only step without a way back
    Complete(moving::Act),
    /// Takes a move back that has not been completed
    Abort(moving::Act),
    /// Tells where a move stands, and what comes next
    Status(moving::Look),
}

/// Reads the arguments and `.env`, and does what they say.
pub async fn run() -> ExitCode {
    let done = match load_variables() {
        Ok(()) => dispatch(Arguments::parse()).await,
        Err(error) => Err(error),
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        eprintln!("error: {}", chain(&error));
        exit::code(&error)
    }))
}

/// An error and its causes. The driver's errors repeat theirs.
fn chain(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

async fn dispatch(arguments: Arguments) -> Result<u8> {
    let manifest = arguments.manifest.as_path();
    match arguments.command {
        Command::Init(init) => init::run(init).await,
        Command::Audit(audit) => audit::run(audit, manifest).await,
        Command::Grants(grants) => grants::run(grants, manifest).await,
        Command::Plan(command) => moving::plan(manifest, &command).await,
        Command::Copy(command) => moving::copy(manifest, &command).await,
        Command::Verify(command) => moving::verify(manifest, &command).await,
        Command::Detach(command) => moving::foreign_keys(manifest, &command, false).await,
        Command::Attach(command) => moving::foreign_keys(manifest, &command, true).await,
        Command::Cutover(command) => moving::switch(manifest, &command, Place::Target).await,
        Command::Rollback(command) => moving::switch(manifest, &command, Place::Source).await,
        Command::Complete(command) => moving::complete(manifest, &command).await,
        Command::Abort(command) => moving::abort(manifest, &command).await,
        Command::Status(command) => moving::status(manifest, &command).await,
    }
}

/// Reads `.env`, which never overrides the environment.
fn load_variables() -> Result<()> {
    match dotenvy::dotenv() {
        // The error's text may repeat a line of the file, which may hold a password.
        Err(dotenvy::Error::LineParse(..)) => bail!(".env has a line that is not NAME=value"),
        Err(error) if !error.not_found() => Err(error).context(".env cannot be read"),
        _ => Ok(()),
    }
}
