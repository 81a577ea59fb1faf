//! The commands of the move: `plan`, `copy`, `verify`, `detach`, `attach`, `cutover`, `rollback`, `complete`, `abort`, `status`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::plan::Weight;
use crate::moving::switch::Switched;
use crate::moving::{Locking, Move, Place, abort, complete, copy, crossings, plan, status, switch, verify};
use crate::output::Output;

/// Whose tables.
#[derive(Debug, Args)]
pub struct Look {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    output: Output,
}

/// The same for what needs locks.
#[derive(Debug, Args)]
pub struct Act {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    output: Output,
}

/// The end.
#[derive(Debug, Args)]
pub struct Complete {
    #[command(flatten)]
    act: Act,
    /// Complete it although the way back is lost: the old tables are not compared with the new ones, which are the only ones
    /// that are right
    #[arg(long)]
    give_up_way_back: bool,
}

/// Taking back.
#[derive(Debug, Args)]
pub struct Abort {
    #[command(flatten)]
    act: Act,
    /// Clean the source alone: the target is gone for good
    #[arg(long)]
    without_target: bool,
}

/// How to compare.
#[derive(Debug, Args)]
pub struct Verify {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    options: verify::Options,
    #[command(flatten)]
    output: Output,
}

/// How to switch.
#[derive(Debug, Args)]
pub struct Switch {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    options: switch::Options,
    #[command(flatten)]
    output: Output,
}

/// `splitctl plan`.
pub async fn plan(manifest: &Path, command: &Look) -> Result<u8> {
    let mut moving = Move::look(manifest, &command.owner).await?;
    let plan = plan::make(&mut moving).await?;
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

/// `splitctl copy`.
pub async fn copy(manifest: &Path, command: &Act) -> Result<u8> {
    let mut moving = Move::open(manifest, &command.owner).await?;
    let copied = copy::run(&mut moving, command.locking).await?;
    command.output.print(&copied, || {
        format!(
            "{} tables, {} rows are on the target after {:.1} s, and every change follows; next: `splitctl verify {}`",
            copied.tables, copied.rows, copied.seconds, copied.owner
        )
    });
    Ok(exit::DONE)
}

/// `splitctl verify`.
pub async fn verify(manifest: &Path, command: &Verify) -> Result<u8> {
    let mut moving = Move::open(manifest, &command.owner).await?;
    let report = verify::run(&mut moving, &command.options).await?;
    let equal = report.is_equal();
    command.output.print(&report, || {
        let mut lines = report.definitions.clone();
        lines.extend(report.differences.iter().map(|d| format!("{} of {} is {}", d.key, d.table, d.difference)));
        lines.extend(report.broken_keys.iter().map(|key| format!("rows break the foreign key {key}")));
        lines.push(format!(
            "{} rows, {} rows/s, {} chunks looked at again: {}",
            report.rows,
            report.rate as u64,
            report.looked_again,
            match (equal, report.different, report.unproven) {
                (true, ..) => format!("the {} has the same", report.lives.other()),
                (false, 0, 0) => "not the same".to_owned(),
                (false, different, 0) => format!("{different} differ"),
                (false, different, unproven) => format!(
                    "{different} differ, {unproven} change too often to tell: try at a quieter time, or with more --patience"
                ),
            }
        ));
        lines.join("\n")
    });
    Ok(if equal { exit::DONE } else { exit::NO })
}

/// `splitctl detach`, and back, `splitctl attach`.
pub async fn foreign_keys(manifest: &Path, command: &Act, on: bool) -> Result<u8> {
    let mut moving = Move::open(manifest, &command.owner).await?;
    let (keys, what) = if on {
        (crossings::attach(&mut moving, command.locking).await?, "is back")
    } else {
        (crossings::detach(&mut moving, command.locking).await?, "is taken off")
    };
    command.output.print(&keys, || {
        let lines = keys.iter().map(|key| format!("the foreign key {} on {} {what}\n", key.name, key.table));
        let lines: String = lines.collect();
        if lines.is_empty() { "no foreign key crosses".to_owned() } else { lines }
    });
    Ok(exit::DONE)
}

/// `splitctl cutover` and `splitctl rollback`.
pub async fn switch(manifest: &Path, command: &Switch, to: Place) -> Result<u8> {
    let mut moving = Move::open(manifest, &command.owner).await?;
    let switched = switch::run(&mut moving, to, &command.options).await?;
    command.output.print(&switched, || {
        let Switched { owner, lives, pause, .. } = &switched;
        let next = match lives {
            Place::Target => format!("back with `splitctl rollback {owner}`, on with `splitctl verify {owner}` and `splitctl complete {owner}`"),
            Place::Source => format!("on with `splitctl verify {owner}` and `splitctl cutover {owner}`, out with `splitctl abort {owner}`"),
        };
        let pause = pause.map_or("; an earlier run had switched, the rest is done".to_owned(), |pause| {
            format!(
                "; writes paused for {:.1} ms: lock {:.1}, stream {:.1}, sequences {:.1}, way back {:.1}, opening {:.1}, commit {:.1}",
                pause.total, pause.lock, pause.stream, pause.sequences, pause.way_back, pause.opening, pause.commit
            )
        });
        format!("the tables of {owner} live in the {lives}{pause}\n{next}")
    });
    Ok(exit::DONE)
}

/// `splitctl complete`.
pub async fn complete(manifest: &Path, command: &Complete) -> Result<u8> {
    let Complete { act: command, give_up_way_back } = command;
    let mut moving = Move::open(manifest, &command.owner).await?;
    let completed = complete::run(&mut moving, command.locking, *give_up_way_back).await?;
    command.output.print(&completed, || {
        format!(
            "{} old tables are dropped, the move of {} is complete; {}",
            completed.dropped.len(),
            completed.owner,
            completed.next(&moving)
        )
    });
    Ok(exit::DONE)
}

/// `splitctl abort`.
pub async fn abort(manifest: &Path, command: &Abort) -> Result<u8> {
    let Abort { act: command, without_target } = command;
    let aborted = if *without_target {
        abort::without_target(manifest, &command.owner, command.locking).await?
    } else {
        abort::run(&mut Move::open_to_abort(manifest, &command.owner).await?, command.locking).await?
    };
    command.output.print(&aborted, || {
        format!(
            "the move of {} is taken back; the target's tables are {}, {} foreign keys are back{}",
            aborted.owner,
            aborted.target,
            aborted.attached,
            aborted.not_attached.as_ref().map(|why| format!("\nwarning: {why}")).unwrap_or_default()
        )
    });
    Ok(exit::DONE)
}

/// `splitctl status`.
pub async fn status(manifest: &Path, command: &Look) -> Result<u8> {
    let mut moving = Move::look(manifest, &command.owner).await?;
    let status = status::read(&mut moving).await?;
    command.output.print(&status, || {
        let Some(lives) = status.lives else { return format!("no move of {} is open\nnext: {}", status.owner, status.next) };
        let yes = |known: bool| if known { "yes" } else { "no" };
        let mut lines = vec![
            format!("the tables of {} live in the {lives} (switches so far: {})", status.owner, status.generation),
            format!(
                "copied: {} ({} of {} tables)   compared since the last switch: {}",
                yes(status.copied),
                status.tables.0,
                status.tables.1,
                yes(status.verified)
            ),
            format!(
                "stream to the {}: {}, {} failures, {}",
                lives.other(),
                if status.stream_works { "at work" } else { "not at work" },
                status.failures,
                status.retained_bytes.map_or("its slot is gone or has lost its WAL".to_owned(), |bytes| {
                    format!("{} MB of WAL held back", bytes / 1_000_000)
                })
            ),
        ];
        lines.extend(status.pending.iter().map(|step| format!("begun and not done: {step}")));
        lines.extend(status.crossings.iter().map(|crossing| format!("still crosses: {crossing}")));
        lines.push(format!("next: {}", status.next));
        lines.extend(status.back.iter().map(|back| format!("back: {back}")));
        lines.join("\n")
    });
    Ok(exit::DONE)
}
