//! `splitctl cutover`.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::exit;
use crate::moving::cutover::{self, Options, Pause, Switched};
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

fn text(Switched { owner, lives, pause, followed, unfinished, .. }: &Switched) -> String {
    let step = if *lives == Side::Target { "cutover" } else { "rollback" };
    if let Some(reason) = unfinished {
        return format!(
            "switched: the tables of {owner} live in the {lives}, and `splitctl {step} {owner}` does the rest\n{reason}"
        );
    }
    let pause = match pause {
        None => "an earlier run had switched, this run did the rest".to_owned(),
        Some(Pause { total, lock, stream, sequences, way_back, opening, commit }) => format!(
            "writes paused for {total:.1} ms: lock {lock:.1}, stream {stream:.1}, sequences {sequences:.1}, way back \
             {way_back:.1}, opening {opening:.1}, commit {commit:.1}"
        ),
    };
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
    format!("the tables of {owner} live in the {lives}; {pause}\n{next}")
}
