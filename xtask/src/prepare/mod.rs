//! `cargo xtask prepare` renews the services' offline query data, each service as its own role.
//!
//! `cargo sqlx prepare` connects as one role for the whole workspace. It also accepts a forbidden write without `returning`,
//! because sqlx lets Postgres plan only statements that return columns.

mod data;
mod rights;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use clap::Args;
use dev::postgres::{TestDatabase, connect};
use dev::wait::block_on;

use crate::workspace::{cargo, root};
use data::QueryData;

/// Flags of `prepare`.
#[derive(Debug, Args)]
pub struct Options {
    /// Change nothing; exit code 1 if the data is stale or a statement is forbidden
    #[arg(long)]
    check: bool,
}

/// A crate with a role of its own: its `sqlx.toml` names the variable of its database.
struct Service {
    name: String,
    folder: PathBuf,
    variable: String,
}

impl Service {
    /// The role that a service's statements run as.
    fn role(&self) -> String {
        format!("{}_svc", self.name)
    }

    fn data_folder(&self) -> PathBuf {
        self.folder.join(".sqlx")
    }
}

/// Renews or checks the data of every service. Stale data or a forbidden statement is printed and gives exit code 1.
///
/// # Errors
/// A file, a program or a database that cannot be used.
pub fn run(options: &Options) -> Result<ExitCode> {
    let shared = TestDatabase::create();
    let mut faults = Vec::new();
    for service in services()? {
        let Some(fresh) = check(&service, &shared, "the shared database", &mut faults)? else { continue };
        let committed = QueryData::read(&service.data_folder())?;
        if options.check {
            let differences = committed.differences(&fresh).into_iter();
            faults.extend(differences.map(|difference| format!("{}: {difference}", service.name)));
        } else {
            committed.replace(&fresh, &service.data_folder())?;
        }
        // The same statements must work in a database without the other service's tables.
        let own = TestDatabase::own(&service.name);
        if let Some(there) = check(&service, &own, "a database of its own", &mut faults)? {
            faults.extend(fresh.unlike(&there).into_iter().map(|statement| {
                format!(
                    "{}: the columns of {statement} differ in a database of its own: make migrations/ and {} agree",
                    service.name,
                    shown(&service.folder.join("migrations")),
                )
            }));
        }
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    Ok(ExitCode::from(u8::from(!faults.is_empty())))
}

/// Compiles the service against the database as its role, and adds forbidden statements to `faults`. Returns the query data;
/// `None` if the service does not compile.
fn check(service: &Service, database: &TestDatabase, what: &str, faults: &mut Vec<String>) -> Result<Option<QueryData>> {
    let (name, role) = (&service.name, service.role());
    let url = database.url_as(&role);
    let Some(fresh) = compile(service, &url)? else {
        faults.push(format!(
            "{name}: a statement is wrong for {what}, or {role} must not run it there; see the compiler's error above. \
             A service reads and writes its own tables, and reads the other's published views \
             (migrations/*_crossings.up.sql)",
        ));
        return Ok(None);
    };
    let statements: Vec<_> = fresh.statements().collect();
    let denied = block_on(async || rights::denied(&mut connect(&url).await?, &role, statements.iter()).await)?;
    let (all, allowed) = (statements.len(), statements.len() - denied.len());
    println!("{name}: {role} may run {allowed} of {all} statements in {what}");
    faults.extend(denied.into_iter().map(|denied| format!("{name}, {what}: {denied}")));
    Ok(Some(fresh))
}

fn services() -> Result<Vec<Service>> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let mut services = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?.as_std_path().to_owned();
        let Ok(config) = std::fs::read_to_string(folder.join("sqlx.toml")) else { continue };
        let config: toml::Table = config.parse().with_context(|| format!("sqlx.toml of {}", package.name))?;
        let variable = config.get("common").and_then(|common| common.get("database-url-var")?.as_str());
        let variable =
            variable.with_context(|| format!("sqlx.toml of {} has no database-url-var", package.name))?.to_owned();
        services.push(Service { name: package.name.to_string(), folder, variable });
    }
    Ok(services)
}

/// Compiles the service against the database and returns its query data; `None` if it does not compile.
fn compile(service: &Service, url: &str) -> Result<Option<QueryData>> {
    let folder = tempfile::tempdir()?;
    // Cargo does not know that the macros depend on the database.
    File::options().append(true).open(service.folder.join("src/lib.rs"))?.set_modified(SystemTime::now())?;
    // With --package, cargo would build everything anew with other features.
    let status = cargo()
        .args(["check", "--quiet", "--bin", &service.name])
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", folder.path())
        .env(&service.variable, url)
        .status()
        .context("cargo cannot be run")?;
    if status.success() { QueryData::read(folder.path()).map(Some) } else { Ok(None) }
}

/// The path relative to the project's folder.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
