//! A session at the console of a pooler. It knows the simple protocol alone.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row, ValueRef, raw_sql};

use super::{Keys, Kind, Pooler, entry};
use crate::names::quote_ident;
use crate::output::note;

/// How long the console may take for anything but a pause.
const ANSWER: Duration = Duration::from_secs(2);

/// A session at the console.
pub struct Console {
    pooler: Pooler,
    connection: PgConnection,
}

/// A database, as the pooler knows it.
pub struct Known {
    /// Where it leads. The host is not there if it is a socket's.
    keys: Keys,
    /// `session`, `transaction` or `statement`.
    pub pool_mode: String,
    /// Whether its clients wait.
    pub is_paused: bool,
}

impl Known {
    /// Whether it leads where an entry says.
    pub fn leads_to(&self, said: &Keys) -> bool {
        let of_address = said.iter().filter(|(key, _)| entry::ADDRESS.contains(&key.as_str()));
        of_address.into_iter().all(|(key, value)| self.keys.get(key).is_none_or(|known| known == value))
    }

    /// Host, port and database.
    pub fn address(&self) -> String {
        entry::address(&self.keys)
    }
}

impl Console {
    /// Logs in.
    ///
    /// # Errors
    /// If the console does not answer, or refuses the login.
    pub async fn open(pooler: &Pooler) -> Result<Self> {
        let options = PgConnectOptions::from_str(&pooler.console).map_err(|_| anyhow!("{pooler}: its URL is not valid"))?;
        // PgBouncer refuses a setting that it does not know.
        let options = options.extra_float_digits(None).application_name("splitctl").disable_statement_logging();
        let connecting = tokio::time::timeout(ANSWER, options.connect()).await;
        let connection = connecting.ok().with_context(|| format!("{pooler}: its console does not answer"))?;
        let connection = connection.with_context(|| format!("{pooler}: its console refuses the login"))?;
        Ok(Self { pooler: pooler.clone(), connection })
    }

    /// Says so if prepared statements do not survive the change of connections that a switch is.
    pub async fn check_version(&mut self, keeps_statements: (u32, u32)) -> Result<()> {
        if self.pooler.kind == Kind::Odyssey {
            return Ok(());
        }
        let rows = self.fetch("show version").await?;
        let version = rows.first().and_then(|row| text(row, "version")).unwrap_or_default();
        let numbers: Vec<u32> =
            version.split(|character: char| !character.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        let (pooler, is_new) =
            (self.pooler.to_string(), numbers.get(..2).is_some_and(|two| (two[0], two[1]) >= keeps_statements));
        if !is_new {
            note(format_args!(
                "warning: {pooler}: {version} does not keep prepared statements. Clients that use them with a transaction's \
                 connection need PgBouncer 1.21 or newer with `max_prepared_statements`; others follow the switch"
            ));
        } else if self.find_setting("max_prepared_statements").await?.is_some_and(|most| most == "0") {
            note(format_args!(
                "warning: {pooler}: `max_prepared_statements` is 0, so it does not keep prepared statements: clients that \
                 use them fail. Others follow the switch"
            ));
        }
        Ok(())
    }

    async fn find_setting(&mut self, key: &str) -> Result<Option<String>> {
        let rows = self.fetch("show config").await?;
        Ok(rows.iter().find(|row| text(row, "key").as_deref() == Some(key)).and_then(|row| text(row, "value")))
    }

    /// What the pooler knows of the database.
    pub async fn find_database(&mut self) -> Result<Option<Known>> {
        let rows = self.fetch("show databases").await?;
        let Some(row) = rows.iter().find(|row| text(row, "name").as_ref() == Some(&self.pooler.database)) else {
            return Ok(None);
        };
        let columns = [("host", "host"), ("port", "port"), ("dbname", "database")];
        let known = columns.iter().filter_map(|(key, column)| Some(((*key).to_owned(), text(row, column)?)));
        let (keys, is_paused) = (known.collect(), text(row, "paused").is_some_and(|paused| paused == "1"));
        let pool_mode = match text(row, "pool_mode").filter(|mode| !mode.is_empty()) {
            Some(mode) => mode,
            None => self.find_setting("pool_mode").await?.unwrap_or_default(),
        };
        Ok(Some(Known { keys, pool_mode, is_paused }))
    }

    /// Has clients wait. Returns when none is in a transaction; Odyssey returns at once.
    pub async fn pause(&mut self) -> Result<()> {
        let statement = self.of_database("pause");
        self.connection.execute(AssertSqlSafe(statement)).await.with_context(|| format!("{}: pause", self.pooler))?;
        Ok(())
    }

    /// Reads the file again.
    pub async fn reload(&mut self) -> Result<()> {
        self.fetch("reload").await.map(drop)
    }

    /// Lets clients go on. It is no error if they do already.
    pub async fn resume(&mut self) -> Result<()> {
        let statement = self.of_database("resume");
        match self.fetch(&statement).await {
            Err(error) if format!("{error:#}").contains("is not paused") => Ok(()),
            done => done.map(drop),
        }
    }

    /// The processes of the server whose connections hold a pause up.
    pub async fn list_holders(&mut self) -> Result<Vec<i32>> {
        let rows = self.fetch("show servers").await?;
        let is_held = |row: &&PgRow| {
            text(row, "database").as_ref() == Some(&self.pooler.database)
                && text(row, "state").is_some_and(|state| state.starts_with("active"))
        };
        let holding = rows.iter().filter(is_held);
        Ok(holding.filter_map(|row| text(row, "remote_pid")?.parse().ok()).collect())
    }

    fn of_database(&self, command: &str) -> String {
        match self.pooler.kind {
            // The console reads a word as it is.
            Kind::PgBouncer if is_word(&self.pooler.database) => format!("{command} {}", self.pooler.database),
            Kind::PgBouncer => format!("{command} {}", quote_ident(&self.pooler.database)),
            Kind::Odyssey => command.to_owned(),
        }
    }

    async fn fetch(&mut self, command: &str) -> Result<Vec<PgRow>> {
        let asking =
            tokio::time::timeout(ANSWER, raw_sql(AssertSqlSafe(command.to_owned())).fetch_all(&mut self.connection));
        let answer = asking.await.ok().with_context(|| format!("{}: no answer to `{command}`", self.pooler))?;
        answer.with_context(|| format!("{}: `{command}`", self.pooler))
    }
}

fn is_word(name: &str) -> bool {
    name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// A column as text, whatever type the console gives it.
fn text(row: &PgRow, column: &str) -> Option<String> {
    let value = row.try_get_raw(column).ok().filter(|value| !value.is_null())?;
    value.as_str().ok().map(str::to_owned)
}
