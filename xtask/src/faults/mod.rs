//! `cargo xtask faults`: does to both services what goes wrong in production, and checks every acknowledged write.

mod inject;
mod leaving;
mod load;
mod oracle;
mod overload;
mod proxy;
mod report;
mod scene;
mod tally;

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::workspace::build;
use inject::{Fault, Injected};
use load::Load;
use report::{Outcome, Report};
use scene::Scene;

/// Flags of `faults`.
#[derive(Debug, Args)]
pub struct Options {
    /// Seconds that each fault lasts
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only these faults; can be repeated
    #[arg(long, value_enum)]
    only: Vec<Fault>,
    /// Build in release mode, for meaningful times
    #[arg(long)]
    release: bool,
}

/// Runs the faults one after the other. The exit code is 1 if one of them did more harm than it may.
///
/// # Errors
/// What could not be set up. All processes are stopped then.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = build(&["users", "orders", "xtask"], options.release, &[])?;
    if options.release && cfg!(debug_assertions) {
        // A debug build of the load would be slow itself.
        let error = std::process::Command::new(programs.join("xtask")).args(std::env::args_os().skip(1)).exec();
        return Err(error).context("the command cannot be run again");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(walk(options, &programs))?;
    println!("{}", report.text());
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

async fn walk(options: &Options, programs: &std::path::Path) -> Result<Report> {
    let mut scene = Scene::prepare(programs).await?;
    scene.start(None).await?;
    let load = Load::start(&scene.users(), &scene.orders());
    load.until_all_succeed().await?;
    let faults = Fault::value_variants().iter().filter(|fault| options.only.is_empty() || options.only.contains(fault));
    let mut outcomes = Vec::new();
    for fault in faults.copied() {
        eprintln!("{}", fault.title());
        load.take();
        let outcome = match inject::inject(fault, &mut scene, &load, Duration::from_secs(options.seconds)).await? {
            Injected::Skipped(reason) => Outcome::skipped(fault, reason),
            Injected::Done(note) => {
                let over = Instant::now();
                scene.until_ready().await?;
                load.until_all_succeed().await.with_context(|| format!("after: {}", fault.title()))?;
                Outcome::new(fault, note, load.take(), over.elapsed())
            }
        };
        eprintln!("  {}", outcome.row());
        outcomes.push(outcome);
    }
    let history = load.end().await?;
    let verdict = oracle::judge(&mut scene.owner().await?, &history).await?;
    Ok(Report { outcomes, verdict })
}
