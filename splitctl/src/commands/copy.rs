//! `splitctl copy`.

use std::path::Path;

use anyhow::Result;

use clap::Args;

use crate::exit;
use crate::moving::copy::Options;
use crate::moving::{Move, copy};
use crate::output::Output;

/// Flags of `copy`.
#[derive(Debug, Args)]
pub struct Copy {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    output: Output,
}

/// Copies, or continues a copy.
pub async fn run(command: Copy, manifest: &Path) -> Result<u8> {
    command.output.begin();
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let copied = copy::run(&mut the_move, command.options).await?;
    command.output.print(&copied, || {
        format!(
            "{} tables, {} rows are on the target after {:.1} s, and every change follows; next: `splitctl verify {}`",
            copied.tables, copied.rows, copied.seconds, copied.owner
        )
    });
    Ok(exit::DONE)
}
