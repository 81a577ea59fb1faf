//! `splitctl rehearse`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::output::Output;
use crate::rehearsal::{self, Options};

/// Flags of `rehearse`.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    output: Output,
}

/// Rehearses the move, and prints the report.
pub async fn run(command: Rehearse, manifest: &Path) -> Result<u8> {
    let report = Box::pin(rehearsal::run(manifest, &command.owner, &command.options)).await?;
    command.output.print(&report, || report.text());
    Ok(if report.errors == 0 { exit::DONE } else { exit::NO })
}
