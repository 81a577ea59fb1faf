//! The shared database: a private one, or the one that `DATABASE_URL` names.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use dev_postgres::{Cluster, ClusterError, block_on, connect};
use shared_db::MIGRATOR;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use uuid::Uuid;

use crate::services::{SERVICES, Service};

/// The private database's name.
const DATABASE: &str = "shop";

/// Migrated, its roles able to log in.
pub enum SharedDatabase {
    /// A server of our own.
    Private(Box<Cluster>),
    /// Somebody's server, where we are the schema's owner.
    Named {
        /// Each service's URL.
        urls: Vec<(&'static str, String)>,
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
        let cluster = Cluster::persistent(&folder.join("cluster")).map_err(explain)?;
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
        let mut owner = connect(url).await.map_err(|error| anyhow!("the server that DATABASE_URL names: {error}"))?;
        migrate(url)?;
        let mut urls = Vec::new();
        for service in SERVICES {
            urls.push((service.name, service_url(&mut owner, url, service, folder).await?));
        }
        Ok(Self::Named { urls })
    }

    /// The URL for a service to log in as its role.
    pub fn url_as(&self, service: Service) -> Result<String> {
        match self {
            Self::Private(cluster) => Ok(cluster.url_as(service.role, DATABASE)),
            Self::Named { urls } => {
                let url = urls.iter().find(|(name, _)| *name == service.name);
                url.map(|(_, url)| url.clone()).ok_or_else(|| anyhow!("no URL for {}", service.name))
            }
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

async fn allow_login(owner: &mut PgConnection, role: &str, password: &str) -> Result<()> {
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
    let kept = folder.join(format!("{role}.password"));
    let password = match fs::read_to_string(&kept) {
        Ok(password) => password.trim().to_owned(),
        Err(_) => {
            let can_login = sqlx::query_scalar::<_, bool>("select rolcanlogin from pg_roles where rolname = $1");
            if can_login.bind(role).fetch_one(&mut *owner).await? {
                bail!(
                    "{role} has a password on the server that DATABASE_URL names: set {database_variable} to the URL it logs in with"
                );
            }
            let password = Uuid::new_v4().simple().to_string();
            // Kept first: a crash in between leaves a role without login and a password to give it.
            keep(&kept, &password)?;
            password
        }
    };
    allow_login(owner, role, &password).await.with_context(|| {
        format!("{role} cannot be given a password: do it as an administrator, and set {database_variable}")
    })?;
    with_login(owner_url, role, &password)
}

fn keep(path: &PathBuf, password: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{password}")?;
    Ok(())
}

/// The same server and database for another login.
fn with_login(url: &str, role: &str, password: &str) -> Result<String> {
    let options: PgConnectOptions = url.parse().map_err(|_| anyhow!("DATABASE_URL is not a valid Postgres URL"))?;
    let parameters = url.split_once('?').map(|(_, parameters)| format!("?{parameters}")).unwrap_or_default();
    let database = options.get_database().context("DATABASE_URL names no database")?;
    Ok(format!("postgres://{role}:{password}@{}:{}/{database}{parameters}", options.get_host(), options.get_port()))
}
