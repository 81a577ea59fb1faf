//! Where migrations come from: a file, or a folder of sqlx's with a table that says which of them have run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use sqlx::migrate::{Migration as Versioned, Migrator};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, query, query_scalar};

use crate::database::execute;
use crate::moving::Database;
use crate::moving::crossings::crossing::APPLICATIONS_PATH;

/// Which migrations to run.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// A file of SQL
    pub file: Option<PathBuf>,
    /// A folder of sqlx's migrations: those that have not run yet, in their order
    #[arg(long, value_name = "DIR")]
    pub sqlx: Option<PathBuf>,
}

/// A migration.
pub struct Migration {
    /// Its file's name, or its version and description.
    pub name: String,
    /// Its statements.
    pub script: String,
    /// The arguments of the command that runs it.
    pub again: String,
    /// Whether the file asks for no transaction.
    pub is_alone: bool,
    versioned: Option<Versioned>,
}

impl Source {
    /// Reads the migrations that have not run on the side where the tables live.
    ///
    /// # Errors
    /// If a file or the folder cannot be read.
    pub async fn read(&self, lives: &Database) -> Result<Vec<Migration>> {
        match (&self.file, &self.sqlx) {
            (Some(file), _) => Ok(vec![read_file(file)?]),
            (None, Some(folder)) => read_folder(folder, lives).await,
            (None, None) => Ok(Vec::new()),
        }
    }
}

fn read_file(file: &Path) -> Result<Migration> {
    let script = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    Ok(Migration { name, script, again: file.display().to_string(), is_alone: false, versioned: None })
}

async fn read_folder(folder: &Path, lives: &Database) -> Result<Vec<Migration>> {
    let migrator = Migrator::new(folder).await.with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut connection = with_applications_path(lives).await?;
    let applied: Vec<i64> = match has_table(&mut connection).await? {
        true => query_scalar("select version from _sqlx_migrations").fetch_all(&mut connection).await?,
        false => Vec::new(),
    };
    let is_new = |one: &&Versioned| !one.migration_type.is_down_migration() && !applied.contains(&one.version);
    let read = |one: &Versioned| Migration {
        name: format!("{} {}", one.version, one.description),
        script: one.sql.as_str().to_owned(),
        again: format!("--sqlx {}", folder.display()),
        is_alone: one.no_tx,
        versioned: Some(one.clone()),
    };
    Ok(migrator.iter().filter(is_new).map(read).collect())
}

impl Migration {
    /// Writes on both sides that it has run, where sqlx keeps its table. Both rows are the same.
    pub async fn record(&self, from: &Database, to: &Database) -> Result<()> {
        let Some(versioned) = &self.versioned else { return Ok(()) };
        let mut at: Option<DateTime<Utc>> = None;
        for side in [from, to] {
            let mut connection = with_applications_path(side).await?;
            if !has_table(&mut connection).await? {
                continue;
            }
            let insert = query(RECORD).bind(versioned.version).bind(&*versioned.description).bind(&*versioned.checksum);
            insert.bind(at).execute(&mut connection).await?;
            let written = query_scalar("select installed_on from _sqlx_migrations where version = $1");
            at = at.or(Some(written.bind(versioned.version).fetch_one(&mut connection).await?));
        }
        Ok(())
    }
}

/// A session that finds tables as the application does.
pub async fn with_applications_path(database: &Database) -> Result<PgConnection> {
    let mut connection = database.connect().await?;
    execute(&mut connection, APPLICATIONS_PATH).await?;
    Ok(connection)
}

async fn has_table(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(connection).await
}

const RECORD: &str = r"
    insert into _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
    values ($1, $2, coalesce($4, now()), true, $3, 0)
    on conflict (version) do nothing";
