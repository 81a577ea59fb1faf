//! `cargo xtask split-demo`: moves a service to its own database under load, and checks every acknowledged write.

mod load;
mod oracle;
mod picture;
mod report;
mod scene;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::Format;
use clap::Args;
use serde_json::Value;

use crate::services::Service;
use crate::workspace::build;
use load::Load;
use report::{Mark, Report};
use scene::Scene;

/// Flags of `split-demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// The owner whose tables move
    #[arg(long, default_value = "orders")]
    owner: Service,
    /// The number of switches: cutover, rollback, cutover …; odd, since the last one is a cutover
    #[arg(long, default_value_t = 3, value_parser = odd)]
    switches: u32,
    /// Orders in the database before the move begins
    #[arg(long, default_value_t = 3000)]
    orders: usize,
    /// Seconds of load before and after the move
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The load, as a part of the highest rate before the move: replication and verification need the rest
    #[arg(long, default_value_t = 0.35)]
    load: f64,
    /// The load in requests a second, instead of a part of the highest rate
    #[arg(long, conflicts_with = "load")]
    rate: Option<f64>,
    /// Build in release mode, for meaningful figures
    #[arg(long)]
    release: bool,
    /// Draw throughput and latency over time into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Text, or one JSON document
    #[arg(long, default_value = "text")]
    format: Format,
}

fn odd(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number % 2 == 1 => Ok(number),
        _ => Err("must be an odd number: the last switch is a cutover".to_owned()),
    }
}

/// Runs the demo. The exit code is 1 if a request failed, or a write was lost, doubled or invented.
///
/// # Errors
/// A step that failed. All processes are stopped then.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = build(&["users", "orders", "splitctl", "xtask"], options.release, &[])?;
    if options.release && cfg!(debug_assertions) {
        // A debug build of the load and the oracle would be the bottleneck.
        let error = std::process::Command::new(programs.join("xtask")).args(std::env::args_os().skip(1)).exec();
        return Err(error).context("the command cannot be run again");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(walk(options, &programs))?;
    if let Some(svg) = &options.svg {
        std::fs::write(svg, picture::draw(&report)).with_context(|| format!("{} cannot be written", svg.display()))?;
    }
    match options.format {
        Format::Text => println!("{}", report.text()),
        Format::Json => println!("{}", serde_json::to_string(&report)?),
    }
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

async fn walk(options: &Options, programs: &std::path::Path) -> Result<Report> {
    let owner = options.owner.name;
    eprintln!("starting two clusters: the shared database, and an empty one for {owner}");
    let mut scene = Scene::prepare(programs, owner).await?;
    let audit = scene.splitctl(&["audit"]).await?;
    eprintln!("audit: {} couplings, all tolerated by the manifest", audit["tolerated"]);

    eprintln!("shadows: each service also calls the other, and compares the answer with its view");
    scene.start(&[("CUSTOMERS_SHADOW", "http"), ("OPEN_ORDERS_SHADOW", "http")]).await?;
    let load = Load::start(&scene.users(), &scene.orders());
    load.fill(options.orders.min(300)).await?;
    scene.check_shadows().await?;
    scene.stop();
    scene.start(&[]).await?;
    eprintln!("filling the database as fast as possible");
    let most = load.fill(options.orders).await?;
    let rate = options.rate.unwrap_or(most * options.load);
    load.pace(rate);
    eprintln!("load: {rate:.0} requests/s, {:.0} % of the highest rate", rate / most * 100.0);
    let quiet = Duration::from_secs(options.seconds);
    tokio::time::sleep(quiet).await;

    let mut walker = Walker { scene: &scene, load: &load, marks: Vec::new(), pauses: Vec::new(), rates: Vec::new() };
    walker.replicas().await?;
    walker.move_out(owner, options.switches).await?;
    let Walker { marks, pauses, rates, .. } = walker;
    tokio::time::sleep(quiet).await;

    eprintln!("checking every acknowledged write");
    let seen = load.stop().await?;
    let verdict = oracle::judge(&scene, &seen).await?;
    drop(scene);
    Ok(Report::new(owner, seen, marks, pauses, rates, verdict))
}

/// Runs the steps.
struct Walker<'a> {
    scene: &'a Scene,
    load: &'a Load,
    marks: Vec<Mark>,
    pauses: Vec<Value>,
    rates: Vec<f64>,
}

impl Walker<'_> {
    /// Lets each service read its replica of the other's data.
    async fn replicas(&mut self) -> Result<()> {
        self.scene.until_followed().await?;
        for what in ["customers", "open_orders"] {
            self.mark(&format!("replace {what}"));
            self.scene.splitctl(&["replace", what]).await?;
        }
        Ok(())
    }

    /// The move itself.
    async fn move_out(&mut self, owner: &str, switches: u32) -> Result<()> {
        self.step("plan", owner).await?;
        self.step("copy", owner).await?;
        let to_and_fro = ["cutover", "rollback"].into_iter().cycle().take(switches as usize);
        for step in to_and_fro {
            self.verify(owner).await?;
            if step == "cutover" {
                self.step("detach", owner).await?;
                self.scene.nothing_crosses().await?;
            }
            let switched = self.step(step, owner).await?;
            let at = self.scene.switched_at().await?;
            if let Some(mark) = self.marks.last_mut() {
                mark.switched = Some(self.load.elapsed().saturating_sub(at.elapsed()?));
            }
            eprintln!("  writes paused for {} ms", switched["pause"]["total"]);
            self.pauses.push(switched["pause"].clone());
        }
        self.verify(owner).await?;
        self.step("complete", owner).await?;
        Ok(())
    }

    async fn verify(&mut self, owner: &str) -> Result<()> {
        let verified = self.step("verify", owner).await?;
        self.rates.extend(verified["rate"].as_f64());
        Ok(())
    }

    async fn step(&mut self, step: &str, owner: &str) -> Result<Value> {
        self.mark(step);
        eprintln!("splitctl {step} {owner}");
        let said = self.scene.splitctl(&[step, owner]).await?;
        self.load.check()?;
        Ok(said)
    }

    fn mark(&mut self, step: &str) {
        self.marks.push(Mark { at: self.load.elapsed(), step: step.to_owned(), switched: None });
    }
}
