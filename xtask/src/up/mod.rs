//! `cargo xtask up` runs Postgres and both services; `cargo xtask down` stops them.

pub mod database;
pub mod demo;
pub mod folder;
mod issuer;
mod own;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use dev::http::Client;
use dev::process::stop_signal;

use crate::services::{PROGRAMS, Running, SERVICES, Service};
use crate::workspace::build;
use database::SharedDatabase;
use folder::DataFolder;
use issuer::Issuer;
pub use issuer::{TokenOptions, token};
use own::Home;

/// Flags of `up`.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Build the services in release mode
    #[arg(long)]
    release: bool,
    /// Build the services with Kafka, which needs a C compiler; `KAFKA_BROKERS` names the broker
    #[arg(long)]
    kafka: bool,
    /// Build the services with RabbitMQ; `RABBITMQ_URL` names the server
    #[arg(long)]
    rabbitmq: bool,
    /// Have the services ask for tokens of a local issuer, which `cargo xtask token` mints
    #[arg(long)]
    auth: bool,
    /// Prepare a database of its own for this service, which follows its tables there when `cargo splitctl` moves them; may
    /// be repeated. With `DATABASE_URL`, set `…_DATABASE_NEXT_OWNER_URL` to that database
    #[arg(long, value_name = "SERVICE")]
    next: Vec<Service>,
    /// The folder of the private Postgres [default: .data; a folder in /var/tmp if root runs this and Postgres' user cannot
    /// enter .data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// The features in both services.
const KAFKA: [&str; 2] = ["orders/kafka", "users/kafka"];
const RABBITMQ: [&str; 2] = ["orders/rabbitmq", "users/rabbitmq"];

/// Flags of `down`.
#[derive(Debug, Args)]
pub struct DownOptions {
    /// Delete the data, too
    #[arg(long)]
    wipe: bool,
    /// The `--data-dir` of `up` [default: .data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Runs everything until Ctrl-C or SIGTERM.
///
/// # Errors
/// A program that could not start, or that ended by itself. All others are stopped then.
pub fn up(options: &UpOptions) -> Result<()> {
    load_variables()?;
    let folder = DataFolder::lock(options.data_dir.as_deref())?;
    for service in SERVICES {
        service.check_ports()?;
    }
    // Before signals are handled, so Ctrl-C ends a download at once.
    SharedDatabase::find_programs()?;
    let wanted = [(options.kafka, KAFKA), (options.rabbitmq, RABBITMQ)];
    let features: Vec<&str> = wanted.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, names)| names).collect();
    let programs = build(&PROGRAMS, options.release, &features)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&folder, &programs, options))
}

/// Reads `.env`.
pub fn load_variables() -> Result<()> {
    match dotenvy::dotenv() {
        Err(dotenvy::Error::LineParse(..)) => bail!(".env has a line that is not NAME=value"),
        Err(error) if !error.not_found() => Err(error).context(".env cannot be read"),
        _ => Ok(()),
    }
}

async fn run(folder: &DataFolder, programs: &Path, options: &UpOptions) -> Result<()> {
    // From here on, a signal starts the clean-up.
    let stop = stop_signal()?;
    let work = async {
        let database = SharedDatabase::prepare(folder.path()).await?;
        let issuer = if options.auth { Some(Issuer::open(folder.path())?) } else { None };
        let mut running = Running::default();
        let mut homes = Vec::new();
        for service in SERVICES {
            let home = own::home(&database, service, &options.next, folder.path()).await?;
            let mut variables: Vec<_> = home.next_url.iter().map(|url| (service.next_variable, url.clone())).collect();
            if let Some(issuer) = &issuer {
                variables.extend(issuer.variables(service)?);
            }
            running.start(service, service.address()?, programs, &home.url, &variables)?;
            homes.push((service, home));
        }
        running.until_ready().await?;
        let client = |service: Service| -> Result<Client> {
            let client = Client::at(service.address()?);
            Ok(issuer.as_ref().map_or_else(|| client.clone(), |issuer| client.bearing(issuer.token_for_all())))
        };
        demo::add_once(&client(SERVICES[0])?, &client(SERVICES[1])?).await?;
        describe(&database, &homes, options)?;
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
    // The services stop first, and answer the requests that they have accepted.
    drop(running);
    drop(database);
    ended
}

/// Prints the addresses and the first commands to try.
fn describe(database: &SharedDatabase, homes: &[(Service, Home)], options: &UpOptions) -> Result<()> {
    let [users, orders] = [SERVICES[0].address()?, SERVICES[1].address()?];
    println!();
    println!("users   http://{users}   API page: http://{users}/docs/");
    println!("orders  http://{orders}   API page: http://{orders}/docs/");
    println!("data    {}", database.place);
    for (service, home) in homes {
        match (&home.moved_to, &home.next_url) {
            (Some(place), _) => println!("        {} has moved to {place}", service.name),
            (None, Some(_)) => println!("        {} follows its tables when `cargo splitctl` moves them", service.name),
            (None, None) => {}
        }
    }
    println!();
    if options.auth {
        let data_dir = options.data_dir.as_ref().map(|path| format!(" --data-dir {}", path.display())).unwrap_or_default();
        println!("  TOKEN=$(cargo xtask token --scope orders:read:any{data_dir})");
        println!("  curl -H \"Authorization: Bearer $TOKEN\" 'http://{orders}/orders?limit=1'");
    } else {
        println!("  curl 'http://{orders}/orders?limit=1'");
    }
    let users_at = match homes.iter().find(|(service, home)| service.name == "users" && home.moved_to.is_some()) {
        Some((service, home)) => home.owner_url.clone().unwrap_or(format!("\"${}\"", service.next_owner_variable)),
        None => database.psql_argument.clone(),
    };
    let (psql, missing) = match database.psql() {
        Ok(psql) => (psql, String::new()),
        Err(missing) => ("psql".to_owned(), format!("    # {missing}")),
    };
    println!("  {psql} {users_at} -c 'select id, name, status from users'{missing}");
    let owners = homes
        .iter()
        .filter_map(|(service, home)| home.owner_url.as_ref().map(|url| format!(" {}={url}", service.next_owner_variable)));
    let owners: String = owners.collect();
    if !owners.is_empty() {
        println!("  export DATABASE_URL={}{owners}", database.psql_argument);
    }
    println!();
    println!("Ctrl-C stops everything; the data stays. `cargo xtask down --wipe` removes it.");
    Ok(())
}

/// Stops a running `up`; with `--wipe`, deletes its data.
///
/// # Errors
/// If it does not stop, or the data cannot be deleted.
pub fn down(options: &DownOptions) -> Result<()> {
    let path = folder::path(options.data_dir.as_deref());
    if !folder::is_ours(&path) {
        println!("{} has no data", path.display());
        return Ok(());
    }
    folder::stop_holder(&path)?;
    if options.wipe {
        // The lock keeps a new `up` from starting in between.
        let folder = DataFolder::lock(Some(&path))?;
        folder.wipe()?;
        println!("deleted {}; a server named by DATABASE_URL keeps its data and roles", path.display());
    }
    Ok(())
}
