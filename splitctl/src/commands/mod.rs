//! One file for each command: its flags, and what it prints. The work is done in the modules beside this folder.

mod abort;
mod arguments;
mod attach;
mod audit;
mod compare;
mod complete;
mod copy;
mod cutover;
mod detach;
mod generate;
mod grants;
mod init;
mod migrate;
mod plan;
mod prove;
mod rehearse;
mod replace;
mod restore;
mod rollback;
mod status;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

use crate::database::{advice, describe};
use crate::exit;
use crate::moving::Side;
use crate::moving::pooler::guard;
use crate::output::note;
use arguments::Act;

/// The way out of a shared Postgres: shows what couples the owners of its tables, ends borrowings, and moves one owner's
/// tables to a database of their own – online, verified, and with a way back.
///
/// Exit codes: 0 done; 1 the check failed or the step was refused; 2 an error, or the outcome is unknown.
#[derive(Debug, Parser)]
#[command(name = "splitctl", version)]
struct Arguments {
    /// The manifest's file
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
    /// Exit code 1 if the manifest's borrowings do not explain every coupling.
    Audit(audit::Audit),
    /// Shows or applies the roles and grants that the manifest implies
    ///
    /// Exit code 1 if the database differs from them, unless --apply repairs it.
    Grants(grants::Grants),
    /// Compares borrowed objects with their replacements, row by row
    ///
    /// Exit code 1 if rows still differ after --patience.
    Compare(compare::Compare),
    /// Ends a borrowing with the manifest's SQL, and copies what changes meanwhile
    ///
    /// Refused unless the borrowing's requirements hold and all rows are equal.
    Replace(replace::Replace),
    /// Undoes `replace`
    Restore(restore::Restore),
    /// Prints everything that would stop or surprise a move; changes nothing
    Plan(plan::Plan),
    /// Rehearses a move on throw-away databases, out and back, and reports what was found; changes nothing else
    ///
    /// Exit code 1 if it found errors.
    Rehearse(rehearse::Rehearse),
    /// Copies an owner's tables to its target; from then on every change follows
    Copy(copy::Copy),
    /// Compares the rows of both sides while writes go on
    Verify(verify::Verify),
    /// Runs a migration on both sides while a move stands, each statement in the order that the stream survives
    Migrate(migrate::Migrate),
    /// Drops the foreign keys between the tables that move and those that stay
    Detach(Act),
    /// Creates those foreign keys again
    Attach(Act),
    /// Checks that what the application runs works on the side of the next switch, as its own role; changes nothing
    ///
    /// Exit code 1 if a statement or a login that works today fails there.
    Prove(prove::Prove),
    /// Switches to the target; writers wait for some milliseconds
    Cutover(cutover::Switch),
    /// Switches back to the source, any time before `complete`
    Rollback(cutover::Switch),
    /// Drops the old tables; this step cannot be undone
    Complete(complete::Complete),
    /// Undoes a move that is not complete
    Abort(abort::Abort),
    /// Prints how far a move is, and the next command
    Status(status::Status),
    /// Writes shell completions and man pages
    #[command(hide = true)]
    Generate(generate::Generate),
    /// The process that `cutover --pooler` starts beside itself
    #[command(hide = true)]
    Guard,
}

/// Reads `.env` and the arguments, and runs the command.
pub async fn run() -> ExitCode {
    let done = match load_variables() {
        Ok(()) => dispatch(Arguments::parse()).await,
        Err(error) => Err(error),
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        note(format_args!("error: {}", describe(&error)));
        if let Some(advice) = advice(&error) {
            note(format_args!("{advice}"));
        }
        exit::code(&error)
    }))
}

async fn dispatch(arguments: Arguments) -> Result<u8> {
    let manifest = arguments.manifest.as_path();
    match arguments.command {
        Command::Init(init) => init::run(init).await,
        Command::Audit(audit) => audit::run(audit, manifest).await,
        Command::Grants(grants) => grants::run(grants, manifest).await,
        Command::Compare(compare) => compare::run(compare, manifest).await,
        Command::Replace(replace) => replace::run(replace, manifest).await,
        Command::Restore(restore) => restore::run(restore, manifest).await,
        Command::Plan(plan) => plan::run(plan, manifest).await,
        Command::Rehearse(rehearse) => rehearse::run(rehearse, manifest).await,
        Command::Copy(copy) => copy::run(copy, manifest).await,
        Command::Verify(verify) => verify::run(verify, manifest).await,
        Command::Migrate(migrate) => migrate::run(migrate, manifest).await,
        Command::Detach(detach) => detach::run(detach, manifest).await,
        Command::Attach(attach) => attach::run(attach, manifest).await,
        Command::Prove(prove) => prove::run(prove, manifest).await,
        Command::Cutover(cutover) => cutover::run(cutover, manifest, Side::Target).await,
        Command::Rollback(rollback) => rollback::run(rollback, manifest).await,
        Command::Complete(complete) => complete::run(complete, manifest).await,
        Command::Abort(abort) => abort::run(abort, manifest).await,
        Command::Status(status) => status::run(status, manifest).await,
        Command::Generate(options) => generate::run(&options, Arguments::command()),
        Command::Guard => guard::run().await,
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
