//! `splitctl copy`.

use std::path::Path;

use anyhow::Result;

use super::arguments::Act;
use crate::exit;
use crate::moving::{Move, copy};

/// Copies, or continues a copy.
pub async fn run(command: Act, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let copied = copy::run(&mut the_move, command.locking).await?;
    command.output.print(&copied, || {
        format!(
            "{} tables, {} rows are on the target after {:.1} s, and every change follows; next: `splitctl verify {}`",
            copied.tables, copied.rows, copied.seconds, copied.owner
        )
    });
    Ok(exit::DONE)
}
