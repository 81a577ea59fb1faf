//! Connections, and what every session of this program has in common.

use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row};

/// The oldest and the newest major version that this is made for.
const VERSIONS: std::ops::RangeInclusive<i32> = 15..=18;

/// Settings that decide how values look as text, so that both sides say the same; a server that lost us lets go; and nothing
/// that a role or database has as its default gets in between: a commit that is acknowledged is one that stays.
const SETTINGS: &str = "
    set datestyle = 'ISO, YMD';
    set intervalstyle = 'postgres';
    set timezone = 'UTC';
    set extra_float_digits = 1;
    set bytea_output = 'hex';
    set lc_monetary = 'C';
    set synchronous_commit = on;
    set statement_timeout = 0;
    set lock_timeout = 0;
    set idle_in_transaction_session_timeout = 0;
    set default_transaction_read_only = off;
    set default_transaction_isolation = 'read committed';
    set search_path = pg_catalog, pg_temp;
    set tcp_keepalives_idle = 5;
    set tcp_keepalives_interval = 2;
    set tcp_keepalives_count = 3;
    set splitctl.at_work = 'yes'";

/// Connects as an operator. The session's `search_path` holds no schema of the user's: every name is written with its own.
///
/// # Errors
/// Which database (by host, port and name, never by its password) does not answer, and why.
pub async fn connect(url: &str) -> Result<PgConnection> {
    let place = place(url);
    let options = PgConnectOptions::from_str(url).map_err(|_| anyhow!("{place} is not a valid Postgres URL"))?;
    let options = options.application_name("splitctl").disable_statement_logging();
    let mut connection = PgConnection::connect_with(&options).await.with_context(|| format!("{place} does not answer"))?;
    connection.execute(SETTINGS).await?;
    let version = version(&mut connection).await?;
    ensure!(VERSIONS.contains(&version), "{place} is Postgres {version}; this program is made for 15 to 18");
    Ok(connection)
}

/// The server's major version.
pub async fn version(connection: &mut PgConnection) -> Result<i32> {
    let number: i32 = connection.fetch_one("select current_setting('server_version_num')::int").await?.try_get(0)?;
    Ok(number / 10000)
}

/// Host, port and database of a URL: what may be shown of it.
pub fn place(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return "the database".to_owned() };
    let host = url.host_str().unwrap_or("localhost");
    format!("{host}:{}{}", url.port().unwrap_or(5432), url.path())
}

/// Runs statements that have no parameters and no rows.
pub async fn execute(connection: &mut PgConnection, statements: impl Into<String>) -> Result<(), sqlx::Error> {
    connection.execute(AssertSqlSafe(statements.into())).await.map(drop)
}

/// The SQLSTATE of an error, if the server sent one.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(Into::into)
}
