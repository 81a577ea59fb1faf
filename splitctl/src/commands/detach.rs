//! `splitctl detach`.

use std::path::Path;

use anyhow::Result;

use super::arguments::Act;
use crate::exit;
use crate::moving::{Move, crossings};

/// Drops what crosses.
pub async fn run(command: Act, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let dropped = crossings::detach(&mut the_move, command.locking).await?;
    command.output.print(&dropped, || {
        let lines: String = dropped.iter().map(|crossing| format!("{crossing} is dropped\n")).collect();
        if lines.is_empty() { "nothing that detach can drop crosses".to_owned() } else { lines }
    });
    Ok(exit::DONE)
}
