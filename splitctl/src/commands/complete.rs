//! `splitctl complete`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::arguments::Act;
use crate::database::address;
use crate::exit;
use crate::moving::Move;
use crate::moving::complete::{self, WayBack};

/// Flags of `complete`.
#[derive(Debug, Args)]
pub struct Complete {
    #[command(flatten)]
    act: Act,
    /// Complete the move although the way back is lost. The old tables are stale then, and are not compared with the new
    /// ones
    #[arg(long)]
    give_up_way_back: bool,
}

/// Drops the old tables.
pub async fn run(Complete { act, give_up_way_back }: Complete, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &act.owner).await?;
    let way_back = if give_up_way_back { WayBack::GivenUp } else { WayBack::Required };
    let completed = complete::run(&mut the_move, act.locking, way_back).await?;
    act.output.print(&completed, || {
        format!(
            "{} old tables are dropped, the move of {} is complete. At its next restart, give the application {} as its \
             only database",
            completed.dropped.len(),
            completed.owner,
            address(&the_move.target.url)
        )
    });
    Ok(exit::DONE)
}
