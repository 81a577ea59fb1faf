//! `splitctl attach`.

use std::path::Path;

use anyhow::Result;

use super::arguments::Act;
use crate::exit;
use crate::moving::{Move, crossings};

/// Creates again what `detach` dropped.
pub async fn run(command: Act, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let restored = crossings::attach(&mut the_move, command.locking).await?;
    command.output.print(&restored, || {
        let lines: String = restored.iter().map(|crossing| format!("{crossing} is there again\n")).collect();
        if lines.is_empty() { "nothing was dropped".to_owned() } else { lines }
    });
    Ok(exit::DONE)
}
