//! `splitctl abort`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::{Locking, Move, abort};
use crate::output::Output;

/// Flags of `abort`.
#[derive(Debug, Args)]
pub struct Abort {
    /// The owner, as the manifest names it
    owner: String,
    /// Clean the source alone, because the target is gone for good
    #[arg(long)]
    without_target: bool,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    output: Output,
}

/// Undoes a move that is not complete.
pub async fn run(command: Abort, manifest: &Path) -> Result<u8> {
    let aborted = if command.without_target {
        abort::without_target(manifest, &command.owner, command.locking).await?
    } else {
        abort::run(&mut Move::open_to_abort(manifest, &command.owner).await?, command.locking).await?
    };
    command.output.tell(&aborted, || {
        format!(
            "{}: the move is aborted; the target's tables are {}, {} foreign keys are there again{}",
            aborted.owner,
            aborted.target,
            aborted.attached,
            aborted.not_attached.as_ref().map(|why| format!("\nwarning: {why}")).unwrap_or_default()
        )
    });
    Ok(exit::DONE)
}
