//! `splitctl cutover`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::cutover::{self, Options, Pause, Switched, Waits};
use crate::moving::{Move, Side};
use crate::output::Output;

/// Flags of `cutover` and `rollback`.
#[derive(Debug, Args)]
pub struct Switch {
    /// The owner, as the manifest names it
    owner: String,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    output: Output,
}

/// Switches to a side, and prints how long writers waited.
pub async fn run(command: Switch, manifest: &Path, to: Side) -> Result<u8> {
    let mut the_move = Move::open(manifest, &command.owner).await?;
    let switched = cutover::run(&mut the_move, to, &command.options).await?;
    command.output.print(&switched, || text(&switched));
    Ok(exit::DONE)
}

fn text(Switched { owner, lives, pause, waits, followed, unfinished, .. }: &Switched) -> String {
    let step = if *lives == Side::Target { "cutover" } else { "rollback" };
    if let Some(reason) = unfinished {
        return format!(
            "switched: the tables of {owner} live in the {lives}, and `splitctl {step} {owner}` does the rest\n{reason}"
        );
    }
    let pause = match pause {
        None => "an earlier run had switched, this run did the rest".to_owned(),
        Some(pause) => {
            let Pause { total, pooler, lock, stream, sequences, way_back, opening, commit, turning } = pause;
            let (mut before, mut after) = (String::new(), String::new());
            if *turning > 0.0 {
                (before, after) = (format!("pooler {pooler:.1}, "), format!(", turning the pooler {turning:.1}"));
            }
            format!(
                "writes paused for {total:.1} ms: {before}lock {lock:.1}, stream {stream:.1}, sequences {sequences:.1}, way \
                 back {way_back:.1}, opening {opening:.1}, commit {commit:.1}{after}"
            )
        }
    };
    let waits = waits.as_ref().map_or_else(String::new, |Waits { processes, requests, longest }| {
        format!("\n{requests} requests waited up to {longest:.1} ms, by the services' reports (processes: {processes})")
    });
    let next = match (lives, followed) {
        (Side::Target, true) => {
            format!("next: `splitctl verify {owner}`, `splitctl complete {owner}`; back: `splitctl rollback {owner}`")
        }
        (Side::Source, true) => {
            format!("next: `splitctl verify {owner}`, `splitctl cutover {owner}`; back: `splitctl abort {owner}`")
        }
        (Side::Target, false) => {
            format!("the slot of the way back is gone; next: `splitctl complete {owner} --give-up-way-back`")
        }
        (Side::Source, false) => {
            format!("the slot of the stream to the target is gone; next: `splitctl abort {owner}`, and copy again")
        }
    };
    format!("the tables of {owner} live in the {lives}; {pause}{waits}\n{next}")
}
