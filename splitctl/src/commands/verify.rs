//! `splitctl verify`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::Move;
use crate::moving::verify::{self, Options, Report};
use crate::output::Output;

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    output: Output,
}

/// Compares both sides, and prints the differences.
pub async fn run(command: Verify, manifest: &Path) -> Result<u8> {
    command.output.begin();
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let report = verify::run(&mut the_move, &command.options).await?;
    command.output.print(&report, || text(&report));
    Ok(if report.is_equal() { exit::DONE } else { exit::NO })
}

fn text(report: &Report) -> String {
    let mut lines = report.definitions.clone();
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(report.differences.iter().map(|d| format!("{} of {} is {}", d.key, d.table, d.difference)));
    lines.extend(report.broken_keys.iter().map(|key| format!("rows break the foreign key {key}")));
    let verdict = match (report.is_equal(), report.different, report.unproven) {
        (true, ..) => format!("the {} has the same rows", report.lives.other()),
        (false, 0, 0) => "not the same".to_owned(),
        (false, different, 0) => format!("{different} differ"),
        (false, different, unproven) => format!(
            "{different} differ, {unproven} change too often to compare: try at a quieter time, or with a longer --patience"
        ),
    };
    let Report { rows, rate, looked_again, .. } = report;
    lines.push(format!("{rows} rows, {} rows/s, {looked_again} chunks compared row by row: {verdict}", *rate as u64));
    lines.join("\n")
}
