//! `cargo xtask up`: everything a newcomer needs, with one command; and `down`, its end.

mod database;
mod demo;
mod folder;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use dev_http::Client;
use dev_postgres::{Leashed, Signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::workspace::build;
use database::SharedDatabase;
use folder::DataFolder;

/// How long the services may take to become ready.
const READY: Duration = Duration::from_secs(60);
/// How long a service may take to stop; it gives requests in flight 30 seconds.
const STOP: Duration = Duration::from_secs(35);
/// How often is looked whether a service still runs.
const LOOK: Duration = Duration::from_millis(200);

/// What `up` is to do.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Build the services for speed
    #[arg(long)]
    release: bool,
    /// Where the private Postgres keeps its data [default: .data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// What `down` is to do.
#[derive(Debug, Args)]
pub struct DownOptions {
    /// Delete the data as well
    #[arg(long)]
    wipe: bool,
    /// The folder given to `up` [default: .data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// The services: name, variable of its address and that one's default, variable of its database, role.
const SERVICES: [Service; 2] = [
    Service {
        name: "users",
        address_variable: "USERS_ADDR",
        default_address: "127.0.0.1:8081",
        database_variable: "USERS_DATABASE_URL",
        role: dev_postgres::USERS_ROLE,
    },
    Service {
        name: "orders",
        address_variable: "ORDERS_ADDR",
        default_address: "127.0.0.1:8082",
        database_variable: "ORDERS_DATABASE_URL",
        role: dev_postgres::ORDERS_ROLE,
    },
];

#[derive(Debug, Clone, Copy)]
struct Service {
    name: &'static str,
    address_variable: &'static str,
    default_address: &'static str,
    database_variable: &'static str,
    role: &'static str,
}

impl Service {
    fn address(&self) -> Result<SocketAddr> {
        let text = std::env::var(self.address_variable).unwrap_or_else(|_| self.default_address.to_owned());
        text.parse().map_err(|_| anyhow!("{} must be an IP address and a port, not `{text}`", self.address_variable))
    }

    /// The service's own message says the same, but only after everything was built and started.
    fn check_port(&self) -> Result<()> {
        let address = self.address()?;
        TcpListener::bind(address).map(drop).with_context(|| {
            format!(
                "{address} cannot be used for {}: stop what uses it, or set {} to another",
                self.name, self.address_variable
            )
        })
    }
}

/// Runs everything until Ctrl-C or SIGTERM.
///
/// # Errors
/// Whatever could not be started, or ended by itself. Nothing that was started is left then.
pub fn up(options: &UpOptions) -> Result<()> {
    load_variables()?;
    let folder = DataFolder::lock(options.data_dir.as_deref())?;
    for service in SERVICES {
        service.check_port()?;
    }
    let programs = build(&SERVICES.map(|service| service.name), options.release)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&folder, &programs))
}

fn load_variables() -> Result<()> {
    match dotenvy::dotenv() {
        Err(dotenvy::Error::LineParse(..)) => bail!(".env has a line that is not NAME=value"),
        Err(error) if !error.not_found() => Err(error).context(".env cannot be read"),
        _ => Ok(()),
    }
}

async fn run(folder: &DataFolder, programs: &Path) -> Result<()> {
    // From here on, a signal is a reason to clean up, and not the end.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let work = async {
        let database = SharedDatabase::prepare(folder.path()).await?;
        let mut running = Running(Vec::new());
        for service in SERVICES {
            running.start(service, programs, &database.url_as(service)?)?;
        }
        running.until_ready().await?;
        demo::add_once(&Client::at(SERVICES[0].address()?), &Client::at(SERVICES[1].address()?)).await?;
        describe(&database)?;
        Ok::<_, anyhow::Error>((running, database))
    };
    tokio::pin!(stop, work);
    let (mut running, database) = tokio::select! {
        started = &mut work => started?,
        () = &mut stop => return Ok(()),
    };
    let ended = tokio::select! {
        ended = running.until_one_ends() => ended,
        () = &mut stop => {
            eprintln!("stopping");
            Ok(())
        }
    };
    // The services first: they answer what they have accepted.
    drop(running);
    drop(database);
    ended
}

/// The services' processes.
struct Running(Vec<(Service, Leashed)>);

impl Running {
    fn start(&mut self, service: Service, programs: &Path, database_url: &str) -> Result<()> {
        let program = programs.join(service.name);
        ensure!(program.is_file(), "{} is missing", program.display());
        let mut command = Command::new(&program);
        command.env(service.database_variable, database_url);
        let process =
            Leashed::start(&command, Signal::Term).with_context(|| format!("{} cannot be run", program.display()))?;
        self.0.push((service, process));
        Ok(())
    }

    /// An error as soon as one of them has ended.
    fn check(&mut self) -> Result<()> {
        for (service, process) in &mut self.0 {
            if let Some(ended) = process.ended()? {
                bail!("{} ended with exit code {}; what it said is above", service.name, ended.code());
            }
        }
        Ok(())
    }

    async fn until_one_ends(&mut self) -> Result<()> {
        loop {
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        for service in SERVICES {
            let client = Client::at(service.address()?);
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
        for (service, process) in self.0.drain(..).rev() {
            if let Err(error) = process.stop_within(STOP) {
                eprintln!("{}: {error}", service.name);
            }
        }
    }
}

/// Says where everything is.
fn describe(database: &SharedDatabase) -> Result<()> {
    let [users, orders] = [SERVICES[0].address()?, SERVICES[1].address()?];
    println!();
    println!("users   http://{users}   API page: http://{users}/docs/");
    println!("orders  http://{orders}   API page: http://{orders}/docs/");
    println!();
    println!("  curl 'http://{orders}/orders?limit=1'");
    println!("  psql {} -c 'select id, name, status from users'", database.psql_argument());
    println!();
    println!("Ctrl-C stops everything; the data stays. `cargo xtask down --wipe` removes it.");
    Ok(())
}

/// Stops an `up` that runs elsewhere; with `--wipe`, deletes its data.
///
/// # Errors
/// If it does not stop, or the data cannot be deleted.
pub fn down(options: &DownOptions) -> Result<()> {
    let path = folder::path(options.data_dir.as_deref());
    if !folder::is_ours(&path) {
        println!("there is nothing in {}", path.display());
        return Ok(());
    }
    folder::stop_holder(&path)?;
    if options.wipe {
        // Held, so that no new `up` begins in between.
        let folder = DataFolder::lock(Some(&path))?;
        std::fs::remove_dir_all(folder.path()).with_context(|| format!("{} cannot be deleted", path.display()))?;
        println!("deleted {}", path.display());
    }
    Ok(())
}
