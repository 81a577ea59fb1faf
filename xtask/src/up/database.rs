//! The shared database: a private one, or the one that `DATABASE_URL` names.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use dev::postgres::{Cluster, MissingClient, Programs, ProgramsError, allow_login, connect, create_database};
use dev::wait::block_on;
use shared_db::MIGRATOR;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::folder::{CLUSTER, PASSWORD};
use crate::services::{SERVICES, Service};

/// The private shared database.
pub const DATABASE: &str = "shop";

/// A migrated database whose roles can log in.
pub struct SharedDatabase {
    /// The server that this process runs, if `DATABASE_URL` names none.
    pub cluster: Option<Cluster>,
    /// The owner's URL. That of a named server must not be shown.
    pub owner_url: String,
    /// The URLs that the services connect with, by their names.
    pub urls: BTreeMap<&'static str, String>,
    /// The place of the data, for people.
    pub place: String,
    /// The argument for psql. The password of a named server must not appear on the terminal.
    pub psql_argument: String,
}

impl SharedDatabase {
    /// Finds or downloads Postgres' programs, unless `DATABASE_URL` names a server.
    pub fn find_programs() -> Result<()> {
        match named_url() {
            Some(_) => Ok(()),
            None => Programs::find().map(drop).map_err(|error| explain(error.into())),
        }
    }

    /// Starts or connects to the server, applies the migrations, and lets the roles log in.
    pub async fn prepare(folder: &Path) -> Result<Self> {
        match named_url() {
            Some(url) => Self::named(url, folder).await,
            None => Self::private(folder).await,
        }
    }

    async fn private(folder: &Path) -> Result<Self> {
        let cluster = Cluster::persistent(&folder.join(CLUSTER)).map_err(explain)?;
        create_database(&mut connect(&cluster.url("postgres")).await?, DATABASE).await?;
        let url = cluster.url(DATABASE);
        migrate(&url)?;
        let mut owner = connect(&url).await?;
        for service in SERVICES {
            allow_login(&mut owner, service.role, cluster.password()).await?;
        }
        Ok(Self {
            urls: SERVICES.map(|service| (service.name, cluster.url_as(service.role, DATABASE))).into(),
            cluster: Some(cluster),
            psql_argument: url.clone(),
            owner_url: url,
            place: folder.display().to_string(),
        })
    }

    async fn named(owner_url: String, folder: &Path) -> Result<Self> {
        let place = place(&owner_url, "DATABASE_URL")?;
        println!("using {place} (DATABASE_URL, from the environment or .env)");
        let mut owner = connect(&owner_url).await.map_err(|error| anyhow!("DATABASE_URL: {place}: {error}"))?;
        check_is_for_us(&mut owner, &place, "DATABASE_URL").await?;
        migrate(&owner_url)?;
        let mut urls = BTreeMap::new();
        for service in SERVICES {
            urls.insert(service.name, service_url(&mut owner, &owner_url, service, folder).await?);
        }
        Ok(Self { cluster: None, owner_url, urls, place, psql_argument: "\"$DATABASE_URL\"".to_owned() })
    }

    /// psql's name if `PATH` has it, else its path.
    pub fn psql(&self) -> Result<String, MissingClient> {
        match &self.cluster {
            Some(cluster) if Command::new("psql").arg("--version").output().is_err() => {
                cluster.client("psql").map(|path| path.display().to_string())
            }
            _ => Ok("psql".to_owned()),
        }
    }
}

fn named_url() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// Host, port and database of the URL in `variable`: the parts that may be shown.
pub fn place(url: &str, variable: &str) -> Result<String> {
    let options: PgConnectOptions = url.parse().map_err(|_| anyhow!("{variable} is not a valid Postgres URL"))?;
    let database = options.get_database().with_context(|| format!("{variable} names no database"))?;
    Ok(format!("{}:{}/{database}", options.get_host(), options.get_port()))
}

/// Refuses a database that belongs to another project, even if a variable names it.
pub async fn check_is_for_us(owner: &mut PgConnection, place: &str, variable: &str) -> Result<()> {
    let others =
        "select exists (select from pg_tables where schemaname = 'public') and to_regclass('_sqlx_migrations') is null";
    if sqlx::query_scalar::<_, bool>(others).fetch_one(owner).await? {
        bail!("{variable}: {place} holds tables of another project: name an empty database, or unset {variable}");
    }
    Ok(())
}

fn migrate(url: &str) -> Result<()> {
    let done = block_on(async || {
        let mut owner = connect(url).await?;
        MIGRATOR.run(&mut owner).await.map_err(sqlx::Error::from)
    });
    done.context("the migrations cannot be applied")
}

/// Adds all ways to get a Postgres to the message.
fn explain(error: anyhow::Error) -> anyhow::Error {
    if !error.is::<ProgramsError>() {
        return error;
    }
    anyhow!(
        "{error}.\nGet a Postgres in one of these ways:\n  \
         apt install postgresql (Debian, Ubuntu), dnf install postgresql-server (Fedora), \
         brew install postgresql@18 (macOS)\n  \
         with Docker: docker compose -f docker-compose.postgres.yml up -d && cp .env.example .env\n  \
         a server you have: DATABASE_URL=postgres://owner:password@host/database cargo xtask up"
    )
}

/// A role that can log in already keeps its password, so a variable must contain its URL. Another role gets a new password,
/// which the data folder keeps.
async fn service_url(owner: &mut PgConnection, owner_url: &str, service: Service, folder: &Path) -> Result<String> {
    if let Ok(url) = env::var(service.database_variable)
        && !url.is_empty()
    {
        return Ok(url);
    }
    let Service { role, database_variable, .. } = service;
    let login = Login { owner_url, role, variable: database_variable, kept: role };
    match kept_password(folder, role) {
        Some(password) => login.allow(owner, &password).await,
        None => login.give_password(owner, folder).await,
    }
}

/// The login of a service's role on a named server.
pub struct Login<'a> {
    pub owner_url: &'a str,
    pub role: &'a str,
    /// The variable that can contain the service's URL.
    pub variable: &'a str,
    /// The name under which the data folder keeps the password.
    pub kept: &'a str,
}

impl Login<'_> {
    /// Gives the role its first password, and returns the service's URL.
    ///
    /// # Errors
    /// If the role has a password already.
    pub async fn give_password(&self, owner: &mut PgConnection, folder: &Path) -> Result<String> {
        let Self { owner_url, role, variable, kept } = *self;
        let can_login = sqlx::query_scalar::<_, bool>("select rolcanlogin from pg_roles where rolname = $1");
        if can_login.bind(role).fetch_one(&mut *owner).await? {
            bail!(
                "{role} has a password at {}: set {variable} to its URL (`alter role {role} password '…'` gives it a new \
                 password)",
                place(owner_url, variable)?
            );
        }
        self.allow(owner, &keep_new_password(folder, kept)?).await
    }

    async fn allow(&self, owner: &mut PgConnection, password: &str) -> Result<String> {
        let Self { owner_url, role, variable, .. } = *self;
        let allowed = allow_login(owner, role, password).await;
        allowed.with_context(|| {
            format!("{role} cannot get a password: give it one as an administrator, and set {variable} to its URL")
        })?;
        with_login(owner_url, role, password)
    }
}

/// The password that an earlier `up` kept under this name.
pub fn kept_password(folder: &Path, name: &str) -> Option<String> {
    let password = fs::read_to_string(folder.join(format!("{name}{PASSWORD}"))).ok()?;
    Some(password.trim().to_owned()).filter(|password| !password.is_empty())
}

/// Makes a password and keeps it. The caller sets it afterwards, so a crash in between loses none.
fn keep_new_password(folder: &Path, name: &str) -> Result<String> {
    let password = Uuid::new_v4().simple().to_string();
    let path = folder.join(format!("{name}{PASSWORD}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{password}")?;
    Ok(password)
}

/// The same server and database for another login.
pub fn with_login(url: &str, role: &str, password: &str) -> Result<String> {
    let options: PgConnectOptions = url.parse().map_err(|_| anyhow!("the owner's URL is not a valid Postgres URL"))?;
    // These parameters would override the user and password before the host.
    let of_the_login = |parameter: &&str| !["user=", "password=", "options="].iter().any(|name| parameter.starts_with(name));
    let parameters = url.split_once('?').map(|(_, all)| all.split('&').filter(of_the_login).collect::<Vec<_>>().join("&"));
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    let database = options.get_database().context("the owner's URL names no database")?;
    Ok(format!("postgres://{role}:{password}@{}:{}/{database}{parameters}", options.get_host(), options.get_port()))
}
