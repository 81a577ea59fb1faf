//! `splitctl status`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::watch;
use crate::exit;
use crate::moving::budget::Budget;
use crate::moving::watching::Watcher;
use crate::moving::{Move, status};
use crate::output::Output;

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The owner, as the manifest names it
    pub owner: String,
    /// Go on looking at a move that runs elsewhere, until it ends
    #[arg(long)]
    pub watch: bool,
    /// Serve what --watch sees to Prometheus at this address, such as 127.0.0.1:9187
    #[arg(long, requires = "watch")]
    pub metrics: Option<SocketAddr>,
    /// With --watch, before the cutover: drop the slot when it reaches --max-wal. The copy has to begin again then
    #[arg(long, requires = "watch")]
    pub give_up: bool,
    #[command(flatten)]
    pub budget: Budget,
    #[command(flatten)]
    pub output: Output,
}

/// Prints how far a move is, and the next command.
pub async fn run(command: Status, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::look(manifest, &command.owner).await?;
    if command.watch {
        let watcher = Watcher::new(the_move, command.budget.max_wal, command.give_up);
        return watch::run(watcher, command.metrics, &command.output).await;
    }
    let status = status::read(&mut the_move, command.budget.max_wal).await?;
    command.output.print(&status, || text(&status));
    Ok(exit::DONE)
}

fn text(status: &status::Status) -> String {
    let Some(lives) = status.lives else { return format!("no move of {} is open\nnext: {}", status.owner, status.next) };
    let yes = |known: bool| if known { "yes" } else { "no" };
    let wal = match status.retained_bytes {
        Some(bytes) => format!("its slot holds back {} MB of WAL", bytes / 1_000_000),
        None => "its slot is gone or has lost its WAL".to_owned(),
    };
    let mut lines = vec![
        format!("the tables of {} live in the {lives} ({} switches so far)", status.owner, status.generation),
        format!("copied: {} ({} of {} tables)", yes(status.copied), status.tables.0, status.tables.1),
        format!("compared since the last switch: {}", yes(status.verified)),
        format!(
            "stream to the {}: {}, {} failures; {wal}",
            lives.other(),
            match (status.stream_works, status.stream_starts) {
                (true, _) => "runs",
                (_, true) => "starting",
                _ => "does not run",
            },
            status.failures,
        ),
    ];
    lines.extend(status.warning.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(status.standbys.iter().map(|standby| format!("standby: {standby}")));
    lines.extend(status.failing.iter().map(|failing| format!("failing: {failing}")));
    lines.extend(status.pending.iter().map(|step| format!("begun and not done: {step}")));
    lines.extend(status.crossings.iter().map(|crossing| format!("crossing: {crossing}")));
    lines.extend(status.reopened.iter().map(|role| {
        format!(
            "open: the role {role} has rights on the old tables in the source again, and would see stale data: revoke them"
        )
    }));
    lines.push(format!("next: {}", status.next));
    lines.extend(status.back.iter().map(|back| format!("back: {back}")));
    lines.join("\n")
}
