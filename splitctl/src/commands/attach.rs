//! `splitctl attach`.

use std::path::Path;

use anyhow::Result;

use super::arguments::Act;
use crate::exit;
use crate::moving::{Move, crossings};

/// Creates the foreign keys again that `detach` dropped.
pub async fn run(command: Act, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let keys = crossings::attach(&mut the_move, command.locking).await?;
    command.output.print(&keys, || {
        let lines = keys.iter().map(|key| format!("{}: the foreign key {} is there again\n", key.table, key.name));
        let lines: String = lines.collect();
        if lines.is_empty() { "no foreign key was dropped".to_owned() } else { lines }
    });
    Ok(exit::DONE)
}
