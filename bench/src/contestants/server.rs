//! A server that the benchmark measures by HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dev::http::Client;
use dev::process::{Leashed, Signal, free_address};
use dev::wait::within;
use serde_json::Value;

use super::WARM_UP;
use crate::cpu::{self, Meter};
use crate::figures::Figures;
use crate::jobs::Job;
use crate::load::Load;

/// How long a server may take to become ready.
const READY: Duration = Duration::from_secs(30);
/// How long a server may take to stop.
const STOP: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    name: &'static str,
    address: SocketAddr,
    process_id: u32,
    leash: Option<Leashed>,
}

impl Server {
    /// Starts a program, which reads its address from `address_variable`, and waits until it is ready.
    pub async fn start(
        programs: &Path,
        name: &'static str,
        address_variable: &str,
        variables: impl Iterator<Item = (&str, &str)>,
    ) -> Result<Self> {
        let program = programs.join(name);
        ensure!(program.is_file(), "{} is missing: start the benchmark with `cargo xtask bench`", program.display());
        let address = free_address();
        let mut command = Command::new(program);
        // The working folder may have a file `.env`.
        command.current_dir("/").env(address_variable, address.to_string()).envs(variables);
        let leash = Leashed::start(&command, Signal::SIGTERM).with_context(|| format!("{name} cannot be run"))?;
        let mut server = Self { name, address, process_id: 0, leash: Some(leash) };
        server.until_ready().await?;
        server.process_id = cpu::find_leashed(name)?;
        Ok(server)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let client = Client::at(self.address);
        within(READY, format!("{} is ready", self.name), async || {
            if let Some(leash) = &mut self.leash
                && let Some(ended) = leash.ended()?
            {
                bail!("{} ended with exit code {}; see its log above", self.name, ended.code());
            }
            Ok(client.is_ready().await)
        })
        .await
    }

    /// The answer to a job for the user or order `n`.
    pub async fn call(&self, job: Job, n: u64) -> Result<Value> {
        let client = Client::at(self.address);
        let call = match job {
            Job::OrderCreate => client.post(job.path(n)).body("application/json", job.body(n)),
            _ => client.get(job.path(n)),
        };
        call.answered(job.status()).await.context(self.name)
    }

    /// Kills it, as a crash does.
    pub fn kill(mut self) -> Result<()> {
        let killed = Command::new("kill").args(["-9", &self.process_id.to_string()]).status()?;
        ensure!(killed.success(), "{} cannot be killed", self.name);
        self.leash
            .take()
            .map(|leash| leash.stop_within(STOP))
            .transpose()
            .with_context(|| format!("{} runs on", self.name))?;
        Ok(())
    }

    /// The most memory that it has had, in MiB.
    pub fn peak_mib(&self) -> Result<u64> {
        cpu::peak_mib(self.process_id)
    }

    /// The address of its HTTP interface.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Measures a job for `length`, and the CPU time of `asks`, the service that it calls.
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
