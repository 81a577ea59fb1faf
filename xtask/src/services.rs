//! Runs the services as processes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use dev::http::Client;
use dev::process::{Leashed, Signal};
use dev::wait::within;

/// The programs of both services.
pub const PROGRAMS: [&str; 2] = ["users", "orders"];

/// How long the services may take to become ready.
const READY: Duration = Duration::from_secs(60);
/// How long a service may take to stop. It gives requests in flight 30 s.
const STOP: Duration = Duration::from_secs(35);
/// How often to check whether a service still runs.
const LOOK: Duration = Duration::from_millis(200);

/// In the order in which they start.
pub const SERVICES: [Service; 2] = [
    Service {
        name: "users",
        address_variable: "USERS_ADDR",
        default_address: "127.0.0.1:8081",
        grpc_address: Some(("USERS_GRPC_ADDR", "127.0.0.1:50051")),
        database_variable: "USERS_DATABASE_URL",
        next_variable: "USERS_DATABASE_NEXT_URL",
        next_owner_variable: "USERS_DATABASE_NEXT_OWNER_URL",
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
        role: dev::postgres::ORDERS_ROLE,
    },
];

/// A service, with the names of its variables. It has a table of its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub name: &'static str,
    pub address_variable: &'static str,
    pub default_address: &'static str,
    /// Variable and default of its gRPC address, if it has one.
    pub grpc_address: Option<(&'static str, &'static str)>,
    pub database_variable: &'static str,
    /// Contains the URL of the database that its tables move to, for the service.
    pub next_variable: &'static str,
    /// The same URL for the owner of the tables.
    pub next_owner_variable: &'static str,
    pub role: &'static str,
}

/// On the command line, a service is its name.
impl ValueEnum for Service {
    fn value_variants<'a>() -> &'a [Self] {
        &SERVICES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name))
    }
}

impl Service {
    /// The value of its variable, or the default.
    pub fn address(&self) -> Result<SocketAddr> {
        read_address(self.address_variable, self.default_address)
    }

    /// Fails before everything is built. The service's own message would come after that.
    pub fn check_ports(&self) -> Result<()> {
        for (variable, default) in [(self.address_variable, self.default_address)].into_iter().chain(self.grpc_address) {
            let address = read_address(variable, default)?;
            TcpListener::bind(address).map(drop).with_context(|| {
                let name = self.name;
                format!(
                    "{name}: {address} cannot be used: stop the program that uses it, or set {variable} to another address"
                )
            })?;
        }
        Ok(())
    }
}

fn read_address(variable: &str, default: &str) -> Result<SocketAddr> {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|_| anyhow!("{variable} must be an IP address and a port, not `{text}`"))
}

/// The running services. Dropping this value stops them.
#[derive(Default)]
pub struct Running(Vec<(Service, SocketAddr, Leashed)>);

impl Running {
    /// Starts a service with these additional variables.
    pub fn start(
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
            Leashed::start(&command, Signal::SIGTERM).with_context(|| format!("{} cannot be run", program.display()))?;
        self.0.push((service, address, process));
        Ok(())
    }

    /// Fails if a service has ended.
    fn check(&mut self) -> Result<()> {
        for (service, _, process) in &mut self.0 {
            if let Some(ended) = process.ended()? {
                bail!("{} ended with exit code {}; see its log above", service.name, ended.code());
            }
        }
        Ok(())
    }

    /// Waits until a service ends, which is an error.
    pub async fn until_one_ends(&mut self) -> Result<()> {
        loop {
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until all services are ready.
    pub async fn until_ready(&mut self) -> Result<()> {
        for (name, address) in self.0.iter().map(|(service, address, _)| (service.name, *address)).collect::<Vec<_>>() {
            let client = Client::at(address);
            within(READY, format!("{name} is ready, see its log above"), async || {
                self.check()?;
                Ok::<_, anyhow::Error>(client.is_ready().await)
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (service, _, process) in self.0.drain(..).rev() {
            if let Err(error) = process.stop_within(STOP) {
                eprintln!("{}: {error}", service.name);
            }
        }
    }
}
