//! `splitctl abort`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::arguments::Act;
use crate::exit;
use crate::moving::Move;
use crate::moving::abort::{self, Rows};

/// Flags of `abort`.
#[derive(Debug, Args)]
pub struct Abort {
    #[command(flatten)]
    act: Act,
    /// Clean the source alone, because the target is gone for good
    #[arg(long)]
    without_target: bool,
    /// With `--without-target`: open the source again although the tables live in the target. Rows that have not arrived in
    /// the source are lost
    #[arg(long, requires = "without_target")]
    give_up_rows: bool,
}

/// Undoes a move that is not complete.
pub async fn run(Abort { act, without_target, give_up_rows }: Abort, manifest: &Path) -> Result<u8> {
    let aborted = if without_target {
        let rows = if give_up_rows { Rows::GiveUp } else { Rows::Keep };
        abort::without_target(manifest, &act.owner, act.locking, rows).await?
    } else {
        abort::run(&mut Move::open_to_abort(manifest, &act.owner).await?, act.locking).await?
    };
    act.output.print(&aborted, || {
        format!(
            "{}: the move is aborted; the target's tables are {}, {} foreign keys are there again{}{}",
            aborted.owner,
            aborted.target,
            aborted.attached,
            match aborted.attached_others {
                0 => String::new(),
                others => format!(", and {others} other objects that crossed"),
            },
            aborted.not_attached.as_ref().map(|why| format!("\nwarning: {why}")).unwrap_or_default()
        )
    });
    Ok(exit::DONE)
}
