//! `splitctl status`.

use std::path::Path;

use anyhow::Result;

use super::arguments::Look;
use crate::exit;
use crate::moving::Move;
use crate::moving::status;

/// Prints how far a move is, and the next command.
pub async fn run(command: Look, manifest: &Path) -> Result<u8> {
    let mut the_move = Move::look(manifest, &command.owner).await?;
    let status = status::read(&mut the_move).await?;
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
            if status.stream_works { "runs" } else { "does not run" },
            status.failures,
        ),
    ];
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
