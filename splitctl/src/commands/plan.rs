//! `splitctl plan`.

use std::path::Path;

use anyhow::Result;

use super::arguments::Look;
use crate::exit;
use crate::moving::plan::Weight;
use crate::moving::{Move, plan};

/// Prints everything that would stop or surprise a move.
pub async fn run(command: Look, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::look(manifest, &command.owner).await?;
    let plan = plan::make(&mut the_move).await?;
    let errors = plan.errors().count();
    command.output.print(&plan, || {
        let lines = plan.findings.iter().map(|finding| {
            let weight = match finding.weight {
                Weight::Error => "error",
                Weight::Warning => "warning",
                Weight::Note => "note",
            };
            format!("{weight}: {}: {}\n", finding.check, finding.text)
        });
        let end = match errors {
            0 => format!("nothing stands against `splitctl copy {}`", command.owner),
            errors => format!("{errors} errors stand against `splitctl copy {}`", command.owner),
        };
        lines.collect::<String>() + &end
    });
    Ok(if errors == 0 { exit::DONE } else { exit::NO })
}
