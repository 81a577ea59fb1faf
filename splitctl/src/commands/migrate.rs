//! `splitctl migrate`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::migrate::{self, Report, Source, Way};
use crate::moving::{Locking, Move};
use crate::output::Output;

/// Flags of `migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    source: Source,
    /// Say what would run where, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    output: Output,
}

/// Runs migrations on both sides.
pub async fn run(command: Migrate, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let report = migrate::run(&mut the_move, &command.source, command.locking, command.dry_run).await?;
    command.output.print(&report, || text(&report));
    Ok(exit::DONE)
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for migration in &report.migrations {
        lines.push(format!("{}:", migration.name));
        lines.extend(migration.statements.iter().map(|(way, statement)| format!("  {}: {statement}", shown(*way))));
    }
    lines.push(match (report.migrations.is_empty(), report.dry_run) {
        (true, _) => "no migration is new".to_owned(),
        (false, true) => "nothing was run".to_owned(),
        (false, false) => format!("done on both sides: `splitctl verify {}` compares the rows", report.owner),
    });
    lines.join("\n")
}

fn shown(way: Way) -> &'static str {
    match way {
        Way::ReceiverFirst => "the receiving side first",
        Way::SenderFirst => "the sending side first",
        Way::SenderOnly => "the sending side only",
        Way::Session => "both sessions",
    }
}
