//! The services, as processes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use dev::http::Client;
use dev::process::{Leashed, Signal};

/// Their programs.
pub const PROGRAMS: [&str; 2] = ["users", "orders"];

/// How long the services may take to become ready.
const READY: Duration = Duration::from_secs(60);
/// How long a service may take to stop; it gives requests in flight 30 seconds.
const STOP: Duration = Duration::from_secs(35);
/// How often is looked whether a service still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Both services.
pub const SERVICES: [Service; 2] = [
    Service {
        name: "users",
        address_variable: "USERS_ADDR",
        default_address: "127.0.0.1:8081",
        grpc_address: Some(("USERS_GRPC_ADDR", "127.0.0.1:50051")),
        database_variable: "USERS_DATABASE_URL",
        next_variable: "USERS_DATABASE_NEXT_URL",
        next_owner_variable: "USERS_DATABASE_NEXT_OWNER_URL",
        table: "users",
        role: dev::postgres::USERS_ROLE,
    },
    Service {
        name: "orders",
        address_variable: "ORDERS_ADDR",
        default_address: "127.0.0.1:8082",
        grpc_address: None,
        database_variable: "ORDERS_DATABASE_URL",
        next_variable: "ORDERS_DATABASE_NEXT_URL",
        next_owner_variable: "ORDERS_DATABASE_NEXT_OWNER_URL",
        table: "orders",
        role: dev::postgres::ORDERS_ROLE,
    },
];

/// A service, and what its variables are called.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub name: &'static str,
    pub address_variable: &'static str,
    pub default_address: &'static str,
    /// Variable and default, if it serves gRPC.
    pub grpc_address: Option<(&'static str, &'static str)>,
    pub database_variable: &'static str,
    /// Names the database that its tables will live in after a move.
    pub next_variable: &'static str,
    /// The same for an operator, who owns what is in there.
    pub next_owner_variable: &'static str,
    /// A table of its own: where that is, the service lives.
    pub table: &'static str,
    pub role: &'static str,
}

impl Service {
    /// Where its variable says, or its default.
    pub fn address(&self) -> Result<SocketAddr> {
        read_address(self.address_variable, self.default_address)
    }

    /// The service's own message says the same, but only after everything was built and started.
    pub fn check_ports(&self) -> Result<()> {
        for (variable, default) in [(self.address_variable, self.default_address)].into_iter().chain(self.grpc_address) {
            let address = read_address(variable, default)?;
            TcpListener::bind(address).map(drop).with_context(|| {
                format!("{address} cannot be used for {}: stop what uses it, or set {variable} to another", self.name)
            })?;
        }
        Ok(())
    }
}

fn read_address(variable: &str, default: &str) -> Result<SocketAddr> {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|_| anyhow!("{variable} must be an IP address and a port, not `{text}`"))
}

/// The services' processes.
#[derive(Default)]
pub struct Running(Vec<(Service, SocketAddr, Leashed)>);

impl Running {
    /// Starts one of them.
    pub fn start(&mut self, service: Service, address: SocketAddr, programs: &Path, database_url: &str) -> Result<()> {
        self.start_with(service, address, programs, database_url, &[])
    }

    /// Starts one of them with more variables.
    pub fn start_with(
        &mut self,
        service: Service,
        address: SocketAddr,
        programs: &Path,
        database_url: &str,
        variables: &[(&str, String)],
    ) -> Result<()> {
        let program = programs.join(service.name);
        ensure!(program.is_file(), "{} is missing", program.display());
        let mut command = Command::new(&program);
        command.env(service.database_variable, database_url).env(service.address_variable, address.to_string());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let process =
            Leashed::start(&command, Signal::Term).with_context(|| format!("{} cannot be run", program.display()))?;
        self.0.push((service, address, process));
        Ok(())
    }

    /// An error as soon as one of them has ended.
    fn check(&mut self) -> Result<()> {
        for (service, _, process) in &mut self.0 {
            if let Some(ended) = process.ended()? {
                bail!("{} ended with exit code {}; what it said is above", service.name, ended.code());
            }
        }
        Ok(())
    }

    /// Never returns without an error.
    pub async fn until_one_ends(&mut self) -> Result<()> {
        loop {
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until all of them can do their work.
    pub async fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        for (service, address) in self.0.iter().map(|(service, address, _)| (*service, *address)).collect::<Vec<_>>() {
            let client = Client::at(address);
            while client.get("/health/ready").send().await.ok().is_none_or(|answer| answer.status != 200) {
                self.check()?;
                ensure!(Instant::now() < deadline, "{} was not ready within {READY:?}; see its log above", service.name);
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// Whatever the reason that they are no longer wanted.
impl Drop for Running {
    fn drop(&mut self) {
        for (service, _, process) in self.0.drain(..).rev() {
            if let Err(error) = process.stop_within(STOP) {
                eprintln!("{}: {error}", service.name);
            }
        }
    }
}
