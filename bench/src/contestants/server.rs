//! A server that is measured through HTTP.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dev::http::Client;
use dev::process::{Leashed, Signal};
use serde_json::Value;

use super::WARM_UP;
use crate::cpu::{self, Meter};
use crate::figures::Figures;
use crate::jobs::Job;
use crate::load::Load;

/// How long a server may take to become ready.
const READY: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    name: &'static str,
    address: SocketAddr,
    process_id: u32,
    leash: Option<Leashed>,
}

impl Server {
    /// Starts a program, which gets its address from the variable `address_variable`, and waits until it is ready.
    pub async fn start(
        programs: &Path,
        name: &'static str,
        address_variable: &str,
        variables: impl Iterator<Item = (&str, &str)>,
    ) -> Result<Self> {
        let program = programs.join(name);
        ensure!(program.is_file(), "{} is missing: start the benchmark with `cargo xtask bench`", program.display());
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut command = Command::new(program);
        // Not where a file `.env` may lie.
        command.current_dir("/").env(address_variable, address.to_string()).envs(variables);
        let leash = Leashed::start(&command, Signal::Term).with_context(|| format!("{name} cannot be run"))?;
        let mut server = Self { name, address, process_id: 0, leash: Some(leash) };
        server.until_ready().await?;
        server.process_id = cpu::find_leashed(name)?;
        Ok(server)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        let client = Client::at(self.address);
        while client.get("/health/ready").send().await.ok().is_none_or(|answer| answer.status != 200) {
            if let Some(leash) = &mut self.leash
                && let Some(ended) = leash.ended()?
            {
                bail!("{} ended with exit code {}; what it said is above", self.name, ended.code());
            }
            ensure!(Instant::now() < deadline, "{} was not ready within {READY:?}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Its answer to a job for the user or order `n`.
    pub async fn call(&self, job: Job, n: u64) -> Result<Value> {
        let client = Client::at(self.address);
        let call = match job {
            Job::OrderCreate => client.post(job.path(n)).body("application/json", job.body(n)),
            _ => client.get(job.path(n)),
        };
        let answer = call.send().await?;
        ensure!(answer.status == job.status(), "{} answers {}: {}", self.name, answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Where it serves HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it do a job for so long; `asks` is the server whose CPU counts as well.
    pub async fn measure(&self, job: Job, length: Duration, asks: Option<&Self>, postgres: u32) -> Result<Figures> {
        let mut load = Load::connect(self.address, job).await?;
        load.drive(WARM_UP).await?;
        let meter = Meter::start(Some(self.process_id), asks.map(|neighbour| neighbour.process_id), postgres)?;
        let answers = load.drive(length).await?;
        let used = meter.stop()?;
        let requests = answers.latencies.len();
        let rate = requests as f64 / answers.duration.as_secs_f64();
        Ok(Figures::new(rate, &answers.latencies, requests, used, answers.failures))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(leash) = self.leash.take()
            && let Err(error) = leash.stop_within(STOP)
        {
            eprintln!("{}: {error}", self.name);
        }
    }
}
