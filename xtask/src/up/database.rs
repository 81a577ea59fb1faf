//! The shared database: a private one, or the one that `DATABASE_URL` names.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use dev::postgres::{Cluster, ClusterError, connect};
use dev::wait::block_on;
use shared_db::MIGRATOR;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use uuid::Uuid;

use super::folder::{CLUSTER, DataFolder, PASSWORD};
use crate::services::{SERVICES, Service};

/// The private database's name.
pub const DATABASE: &str = "shop";

/// Migrated, its roles able to log in.
pub enum SharedDatabase {
    /// A server of our own.
    Private(Box<Cluster>),
    /// Somebody's server, where we are the schema's owner.
    Named {
        /// The owner's URL, which holds a password of somebody's.
        url: String,
        /// Each service's URL.
        urls: Vec<(&'static str, String)>,
        /// Host, port and database.
        place: String,
    },
}

impl SharedDatabase {
    /// Starts or finds the server, applies the migrations, and lets the roles log in.
    pub async fn prepare(folder: &Path) -> Result<Self> {
        match env::var("DATABASE_URL") {
            Ok(url) if !url.is_empty() => Self::named(&url, folder).await,
            _ => Self::private(folder).await,
        }
    }

    async fn private(folder: &Path) -> Result<Self> {
        let cluster = Cluster::persistent(&folder.join(CLUSTER)).map_err(explain)?;
        let mut admin = connect(&cluster.url("postgres")).await?;
        let known = sqlx::query_scalar::<_, bool>("select exists (select from pg_database where datname = $1)");
        if !known.bind(DATABASE).fetch_one(&mut admin).await? {
            admin.execute(AssertSqlSafe(format!("create database {DATABASE}"))).await?;
        }
        let url = cluster.url(DATABASE);
        migrate(&url)?;
        let mut owner = connect(&url).await?;
        for service in SERVICES {
            allow_login(&mut owner, service.role, cluster.password()).await?;
        }
        Ok(Self::Private(Box::new(cluster)))
    }

    async fn named(url: &str, folder: &Path) -> Result<Self> {
        let place = place(url, "DATABASE_URL")?;
        println!("using {place}, which DATABASE_URL names (in the environment or in .env)");
        let mut owner = connect(url).await.map_err(|error| anyhow!("{place}, which DATABASE_URL names: {error}"))?;
        check_is_for_us(&mut owner, &place, "DATABASE_URL").await?;
        migrate(url)?;
        let mut urls = Vec::new();
        for service in SERVICES {
            urls.push((service.name, service_url(&mut owner, url, service, folder).await?));
        }
        Ok(Self::Named { url: url.to_owned(), urls, place })
    }

    /// The URL for a service to log in as its role.
    pub fn url_as(&self, service: Service) -> Result<String> {
        match self {
            Self::Private(cluster) => Ok(cluster.url_as(service.role, DATABASE)),
            Self::Named { urls, .. } => {
                let url = urls.iter().find(|(name, _)| *name == service.name);
                url.map(|(_, url)| url.clone()).ok_or_else(|| anyhow!("no URL for {}", service.name))
            }
        }
    }

    /// The URL of its owner, not to be shown.
    pub fn owner_url(&self) -> String {
        match self {
            Self::Private(cluster) => cluster.url(DATABASE),
            Self::Named { url, .. } => url.clone(),
        }
    }

    /// Where the data is, in words.
    pub fn place(&self, folder: &DataFolder) -> String {
        match self {
            Self::Private(_) => folder.path().display().to_string(),
            Self::Named { place, .. } => place.clone(),
        }
    }

    /// What to tell psql. The password of somebody's server is not for the terminal.
    pub fn psql_argument(&self) -> String {
        match self {
            Self::Private(cluster) => cluster.url(DATABASE),
            Self::Named { .. } => "\"$DATABASE_URL\"".to_owned(),
        }
    }
}

/// Host, port and database of a URL that a variable holds: what may be shown of it.
pub fn place(url: &str, variable: &str) -> Result<String> {
    let options: PgConnectOptions = url.parse().map_err(|_| anyhow!("{variable} is not a valid Postgres URL"))?;
    let database = options.get_database().with_context(|| format!("{variable} names no database"))?;
    Ok(format!("{}:{}/{database}", options.get_host(), options.get_port()))
}

/// A database that belongs to another project is left alone, although the variable names it.
pub async fn check_is_for_us(owner: &mut PgConnection, place: &str, variable: &str) -> Result<()> {
    let others =
        "select exists (select from pg_tables where schemaname = 'public') and to_regclass('_sqlx_migrations') is null";
    if sqlx::query_scalar::<_, bool>(others).fetch_one(owner).await? {
        bail!(
            "{place}, which {variable} names, holds tables of something else: name an empty database, or unset {variable}"
        );
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

/// Where no server can be had: all the ways to get one, in one message.
fn explain(error: ClusterError) -> anyhow::Error {
    match error {
        ClusterError::NotFound(_) => anyhow!(
            "{error}.\nGet a Postgres in one of these ways:\n  \
             apt install postgresql (Debian, Ubuntu) · dnf install postgresql-server (Fedora) · brew install postgresql@18 (macOS)\n  \
             with Docker: docker compose -f docker-compose.postgres.yml up -d && cp .env.example .env\n  \
             a server you have: DATABASE_URL=postgres://owner:password@host/database cargo xtask up"
        ),
        error => error.into(),
    }
}

/// Lets a role log in with this password.
pub async fn allow_login(owner: &mut PgConnection, role: &str, password: &str) -> Result<()> {
    // The password is ours, and has only letters and digits.
    owner.execute(AssertSqlSafe(format!("alter role {role} login password '{password}'"))).await?;
    Ok(())
}

/// A role that can log in keeps its password: its URL must be given then. One that cannot gets a password, which is kept
/// in the data folder.
async fn service_url(owner: &mut PgConnection, owner_url: &str, service: Service, folder: &Path) -> Result<String> {
    if let Ok(url) = env::var(service.database_variable)
        && !url.is_empty()
    {
        return Ok(url);
    }
    let Service { role, database_variable, .. } = service;
    let password = match kept_password(folder, role) {
        Some(password) => password,
        None => {
            let can_login = sqlx::query_scalar::<_, bool>("select rolcanlogin from pg_roles where rolname = $1");
            if can_login.bind(role).fetch_one(&mut *owner).await? {
                bail!(
                    "{role} has a password on the server that DATABASE_URL names: set {database_variable} to the URL it logs in with (`alter role {role} password '…'` gives it a new one)"
                );
            }
            keep_new_password(folder, role)?
        }
    };
    allow_login(owner, role, &password).await.with_context(|| {
        format!("{role} cannot be given a password: do it as an administrator, and set {database_variable}")
    })?;
    with_login(owner_url, role, &password)
}

/// The password that an earlier `up` gave, under this name.
pub fn kept_password(folder: &Path, name: &str) -> Option<String> {
    let password = fs::read_to_string(folder.join(format!("{name}{PASSWORD}"))).ok()?;
    Some(password.trim().to_owned()).filter(|password| !password.is_empty())
}

/// A password to be given, kept first: a crash in between leaves a role without login and a password to give it.
pub fn keep_new_password(folder: &Path, name: &str) -> Result<String> {
    let password = Uuid::new_v4().simple().to_string();
    let path = folder.join(format!("{name}{PASSWORD}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{password}")?;
    Ok(password)
}

/// The same server and database for another login.
pub fn with_login(url: &str, role: &str, password: &str) -> Result<String> {
    let options: PgConnectOptions = url.parse().map_err(|_| anyhow!("the owner's URL is not a valid Postgres URL"))?;
    // These would go before what stands in front of the host.
    let of_the_login = |parameter: &&str| !["user=", "password=", "options="].iter().any(|name| parameter.starts_with(name));
    let parameters = url.split_once('?').map(|(_, all)| all.split('&').filter(of_the_login).collect::<Vec<_>>().join("&"));
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    let database = options.get_database().context("the owner's URL names no database")?;
    Ok(format!("postgres://{role}:{password}@{}:{}/{database}{parameters}", options.get_host(), options.get_port()))
}
