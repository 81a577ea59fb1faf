//! `splitctl plan`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::budget::Budget;
use crate::moving::plan::wal;
use crate::moving::{Move, plan};
use crate::output::Output;
use crate::proof::unbrought;
use crate::rehearsal::record;

/// Flags of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    budget: Budget,
    #[command(flatten)]
    output: Output,
}

/// Prints everything that would stop or surprise a move.
pub async fn run(command: Plan, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::look(manifest, &command.owner).await?;
    let session = the_move.source.connect().await?;
    let make = async {
        let inventory = the_move.read_inventory().await?;
        let mut plan = plan::make_of(&mut the_move, &inventory).await?;
        unbrought::describe(&mut plan, &mut the_move, &inventory).await?;
        anyhow::Ok(plan)
    };
    let (plan, rate) = tokio::join!(Box::pin(make), wal::measure(session));
    let (mut plan, rate) = (plan?, rate?);
    rate.describe(&mut plan, command.budget.max_wal);
    plan.findings.sort_by_key(|finding| finding.weight);
    record::describe(&mut plan, &mut the_move, manifest).await?;
    let errors = plan.errors().count();
    command.output.print(&plan, || {
        let lines = plan.findings.iter().map(|finding| format!("{}: {}: {}\n", finding.weight, finding.check, finding.text));
        let end = match errors {
            0 => format!("nothing stands against `splitctl copy {}`", command.owner),
            errors => format!("{errors} errors stand against `splitctl copy {}`", command.owner),
        };
        lines.collect::<String>() + &end
    });
    Ok(if errors == 0 { exit::DONE } else { exit::NO })
}
