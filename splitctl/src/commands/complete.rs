//! `splitctl complete`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::database::address;
use crate::exit;
use crate::moving::complete::{self, WayBack};
use crate::moving::{Locking, Move};
use crate::output::Output;

/// Flags of `complete`.
#[derive(Debug, Args)]
pub struct Complete {
    /// The owner, as the manifest names it
    owner: String,
    /// Complete the move although the way back is lost. The old tables are stale then, and are not compared with the new ones
    #[arg(long)]
    give_up_way_back: bool,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    output: Output,
}

/// Drops the old tables.
pub async fn run(command: Complete, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let way_back = if command.give_up_way_back { WayBack::GivenUp } else { WayBack::Required };
    let completed = complete::run(&mut the_move, command.locking, way_back).await?;
    command.output.tell(&completed, || {
        format!(
            "{0}: the move is complete, {1} old tables are dropped. At its next restart, give the service {2} as its database \
             and remove its NEXT variable",
            completed.owner,
            completed.dropped.len(),
            address(&the_move.target.url)
        )
    });
    Ok(exit::DONE)
}
