//! `splitctl prove`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::{Move, Side};
use crate::output::Output;
use crate::proof::{self, Extent, Proof};

/// Flags of `prove`.
#[derive(Debug, Args)]
pub struct Prove {
    /// The owner, as the manifest names it
    owner: String,
    /// The side to prove; by default the one to which the next switch leads
    #[arg(long, value_parser = ["source", "target"])]
    on: Option<String>,
    /// Also insert, update and delete one row of each table on both sides, and roll it back
    #[arg(long)]
    writes: bool,
    #[command(flatten)]
    output: Output,
}

/// Proves a side, and prints what it finds.
pub async fn run(command: Prove, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::look(manifest, &command.owner).await?;
    let extent = if command.writes { Extent::Writes { reach_outside: false } } else { Extent::Plans };
    let on = match command.on.as_deref() {
        Some("source") => Side::Source,
        Some(_) => Side::Target,
        None => the_move.lives().other(),
    };
    let proof = Box::pin(proof::prove(&mut the_move, on, extent)).await?;
    command.output.print(&proof, || text(&proof));
    Ok(if proof.errors().next().is_none() { exit::DONE } else { exit::NO })
}

fn text(proof: &Proof) -> String {
    let mut lines: Vec<String> =
        proof.findings.iter().map(|finding| format!("{}: {}", finding.weight, finding.text)).collect();
    lines.extend(proof.unchecked.iter().map(|one| format!("unchecked: {}: {}", one.statement, one.why)));
    lines.extend(proof.written.iter().map(|done| format!("{} on {}: {}", done.write, done.table, done.result)));
    lines.extend(proof.outside.iter().map(|one| format!("reaches outside: {one}")));
    let login = if proof.own_login { ", and its login works" } else { "" };
    let errors = proof.errors().count();
    lines.push(format!(
        "{} statements of the application are checked for the {}, {} are not{login}; {errors} errors",
        proof.statements,
        proof.side,
        proof.unchecked.len()
    ));
    lines.join("\n")
}
