//! `cargo xtask split-demo`: the whole way out, walked under load, with an oracle that knows every acknowledged write.

mod load;
mod oracle;
mod picture;
mod report;
mod scene;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::workspace::build;
use load::Load;
use report::{Mark, Report};
use scene::Scene;

/// How the way is walked.
#[derive(Debug, Args)]
pub struct Options {
    /// Whose tables move
    #[arg(long, default_value = "orders")]
    owner: Moving,
    /// Switches in all: cutover, rollback, cutover …; an odd number, since the last one is a cutover
    #[arg(long, default_value_t = 3, value_parser = odd)]
    switches: u32,
    /// Orders that are there before the move begins
    #[arg(long, default_value_t = 3000)]
    orders: usize,
    /// How long the load goes on before the move and after it, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The load, as a part of what both services can bear at most before the move: replication and comparing come on top
    #[arg(long, default_value_t = 0.35)]
    load: f64,
    /// Build for speed: for figures that mean something
    #[arg(long)]
    release: bool,
    /// Draw throughput and latency over time into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Lines for people, or one JSON document
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Whose tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Moving {
    Users,
    Orders,
}

impl Moving {
    fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Orders => "orders",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn odd(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number % 2 == 1 => Ok(number),
        _ => Err("must be an odd number: the last switch is a cutover".to_owned()),
    }
}

/// Walks it. Exit code 1 if a request failed, or a write was lost, doubled or invented.
///
/// # Errors
/// What kept it from coming to its end. Nothing that was started is left then.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = build(&["users", "orders", "splitctl", "xtask"], options.release, &[])?;
    if options.release && cfg!(debug_assertions) {
        // The load and the oracle must not be what is slow.
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
    let owner = options.owner.name();
    eprintln!("two clusters, the shared database, and {owner}' own, which is empty");
    let mut scene = Scene::prepare(programs, owner).await?;
    let audit = scene.splitctl(&["audit"]).await?;
    eprintln!("audit: {} couplings, all tolerated by the manifest", audit["tolerated"]);

    eprintln!("dials: each service asks the other beside its view, and compares");
    scene.start(&[("CUSTOMERS_SHADOW", "http"), ("OPEN_ORDERS_SHADOW", "http")]).await?;
    let load = Load::start(&scene.users(), &scene.orders());
    load.fill(options.orders.min(300)).await?;
    scene.check_shadows().await?;
    scene.stop();
    scene.start(&[]).await?;
    eprintln!("filling, as fast as it goes");
    let most = load.fill(options.orders).await?;
    load.pace(most * options.load);
    eprintln!("load: {:.0} requests/s, {:.0} % of what both can bear", most * options.load, options.load * 100.0);
    let quiet = Duration::from_secs(options.seconds);
    tokio::time::sleep(quiet).await;

    let mut walker = Walker { scene: &scene, load: &load, marks: Vec::new(), pauses: Vec::new(), rates: Vec::new() };
    walker.replicas().await?;
    walker.move_out(owner, options.switches).await?;
    let Walker { marks, pauses, rates, .. } = walker;
    tokio::time::sleep(quiet).await;

    eprintln!("the oracle: every acknowledged write, once");
    let seen = load.stop().await?;
    let verdict = oracle::judge(&scene, &seen).await?;
    drop(scene);
    Ok(Report::new(owner, seen, marks, pauses, rates, verdict))
}

/// Goes from step to step.
struct Walker<'a> {
    scene: &'a Scene,
    load: &'a Load,
    marks: Vec<Mark>,
    pauses: Vec<Value>,
    rates: Vec<f64>,
}

impl Walker<'_> {
    /// Each service reads the other's data from its own tables.
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
                // What is tolerated in the manifest and needed no more is all that an audit still finds.
                self.scene.nothing_crosses().await?;
            }
            let switched = self.step(step, owner).await?;
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
        self.marks.push(Mark { at: self.load.elapsed(), step: step.to_owned() });
    }
}

/// A condition of another process, awaited.
async fn until(claim: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    while !holds().await? {
        ensure!(std::time::Instant::now() < deadline, "{claim}: not within 90 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
