//! `cargo xtask fuzz`: schemathesis sends both services valid and invalid requests, by their `OpenAPI` documents.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use dev::http::Client;
use dev::postgres::TestDatabase;
use dev::process::free_address;

use crate::services::{PROGRAMS, Running, SERVICES};
use crate::up::demo;
use crate::workspace::{build, root};

/// From `PyPI`.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// Rules that a document cannot express: a cursor must have been issued, a user must exist, `DELETE` deactivates.
const NOT_IN_DOCUMENTS: &str = "positive_data_acceptance,use_after_free";

/// How to fuzz.
#[derive(Debug, Args)]
pub struct Options {
    /// Seconds for each service
    #[arg(long, default_value = "60")]
    seconds: u32,
    /// Repeat the run that printed this seed
    #[arg(long)]
    seed: Option<u64>,
}

/// Fuzzes both services on a test database. A finding gives exit code 1.
///
/// # Errors
/// A program that cannot be built, installed or run.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = build(&PROGRAMS, false, &[])?;
    let schemathesis = install()?;
    let database = TestDatabase::create();
    let runtime = tokio::runtime::Runtime::new()?;
    let mut running = Running::default();
    let addresses = [free_address(), free_address()];
    for (service, address) in SERVICES.into_iter().zip(addresses) {
        running.start(service, address, &programs, &database.url_as(service.role), &[])?;
    }
    runtime.block_on(async {
        running.until_ready().await?;
        demo::add_once(&Client::at(addresses[0]), &Client::at(addresses[1])).await
    })?;
    let mut sound = true;
    for (service, address) in SERVICES.iter().zip(addresses) {
        println!("\n{}", service.name);
        let mut run = Command::new(&schemathesis);
        run.args(["run", &format!("http://{address}/openapi.json"), "--checks=all", "--continue-on-failure"]);
        run.arg(format!("--exclude-checks={NOT_IN_DOCUMENTS}")).arg(format!("--max-time={}", options.seconds));
        if let Some(seed) = options.seed {
            run.arg(format!("--seed={seed}"));
        }
        // schemathesis writes its findings into a folder beside it.
        sound &= run.current_dir(root().join("target")).status().context("schemathesis cannot be run")?.success();
    }
    Ok(ExitCode::from(u8::from(!sound)))
}

/// Installs schemathesis into the target folder, once.
fn install() -> Result<PathBuf> {
    let folder = root().join("target").join("schemathesis");
    let program = folder.join("bin").join("schemathesis");
    if !program.is_file() {
        let python = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
        ensure!(
            python.is_ok_and(|status| status.success()),
            "python3 with the module venv is missing: install it (apt install python3-venv)"
        );
        let pip = Command::new(folder.join("bin/pip")).args(["install", "--quiet", SCHEMATHESIS]).status()?;
        ensure!(pip.success(), "{SCHEMATHESIS} cannot be installed");
    }
    Ok(program)
}
