//! Connections to Postgres, and the session settings that all of them share.

use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, FromRow, PgConnection, query_as, query_scalar};

/// The major versions of Postgres that splitctl supports.
const VERSIONS: std::ops::RangeInclusive<i32> = 15..=18;

/// Values must look the same as text on both sides. A server must drop a session whose client is gone. Defaults of a role or
/// a database must not weaken a session: an acknowledged commit is a durable one.
const SETTINGS: &str = "
    set client_min_messages = warning;
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
    set idle_session_timeout = 0;
    set quote_all_identifiers = off;
    set default_transaction_read_only = off;
    set default_transaction_isolation = 'read committed';
    set search_path = pg_catalog, pg_temp;
    set tcp_keepalives_idle = 5;
    set tcp_keepalives_interval = 2;
    set tcp_keepalives_count = 3;
    set splitctl.at_work = 'yes'";

/// Resets every other setting that the role or the database has, and the time-out that only some versions know. What
/// [`SETTINGS`] has set comes from the session by now.
const RESETS: &str = r"
    select set_config(s.name, coalesce(s.boot_val, ''), false)
    from pg_settings s
    where (s.source in ('global', 'database', 'user', 'database user') or s.name = 'transaction_timeout')
      and (s.context = 'user' or s.context = 'superuser' and current_setting('is_superuser') = 'on')";

/// Connects as an operator. The session's `search_path` holds no schema of the user, so every statement names the schema.
///
/// # Errors
/// If the database does not answer: its host, port and name, never its password, and the cause.
pub async fn connect(url: &str) -> Result<PgConnection> {
    let address = address(url);
    let options = PgConnectOptions::from_str(url).map_err(|_| anyhow!("{address} is not a valid Postgres URL"))?;
    let options = options.application_name("splitctl").disable_statement_logging();
    let mut connection = PgConnection::connect_with(&options).await.with_context(|| format!("{address} does not answer"))?;
    connection.execute(SETTINGS).await?;
    connection.execute(RESETS).await?;
    let version = version(&mut connection).await?;
    ensure!(VERSIONS.contains(&version), "{address} is Postgres {version}; splitctl supports 15 to 18");
    Ok(connection)
}

/// The server's major version.
pub async fn version(connection: &mut PgConnection) -> Result<i32> {
    let number: i32 = query_scalar("select current_setting('server_version_num')::int").fetch_one(connection).await?;
    Ok(number / 10000)
}

/// The URL as libpq reads it: some parameters have other names there, and one is unknown.
pub fn for_libpq(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else { return url.to_owned() };
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.set_query(None);
    for (name, value) in parameters {
        let (name, value) = match name.as_str() {
            "statement-cache-capacity" => continue,
            "ssl-mode" => ("sslmode", value),
            "ssl-root-cert" | "ssl-ca" => ("sslrootcert", value),
            "ssl-cert" => ("sslcert", value),
            "ssl-key" => ("sslkey", value),
            other => match other.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']')) {
                Some(setting) => ("options", format!("-c {setting}={value}")),
                None => (other, value),
            },
        };
        url.query_pairs_mut().append_pair(name, &value);
    }
    // libpq reads a plus sign as it is.
    let query = url.query().map(|query| query.replace('+', "%20"));
    url.set_query(query.as_deref());
    url.into()
}

/// Host, port and database of a URL: the part without a password.
pub fn address(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return "the database".to_owned() };
    let host = url.host_str().unwrap_or("localhost");
    format!("{host}:{}{}", url.port().unwrap_or(5432), url.path())
}

/// Runs statements without parameters and rows. Every name in them is quoted, since no parameter can stand for a name.
pub async fn execute(connection: &mut PgConnection, statements: impl Into<String>) -> Result<(), sqlx::Error> {
    connection.execute(AssertSqlSafe(statements.into())).await.map(drop)
}

/// The rows of a statement that holds quoted names.
pub async fn fetch<T>(connection: &mut PgConnection, statement: String) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'row> FromRow<'row, PgRow> + Send + Unpin,
{
    query_as(AssertSqlSafe(statement)).fetch_all(connection).await
}

/// The first value of a statement that holds quoted names, if it has a row.
pub async fn fetch_value<T>(connection: &mut PgConnection, statement: String) -> Result<Option<T>, sqlx::Error>
where
    T: for<'row> sqlx::Decode<'row, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    query_scalar(AssertSqlSafe(statement)).fetch_optional(connection).await
}

/// The SQLSTATE of an error, if the server sent one.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::for_libpq;

    #[test]
    fn a_url_of_sqlx_becomes_one_of_libpq() {
        for (ours, its) in [
            ("postgres://me:p%40ss@host:5/db", "postgres://me:p%40ss@host:5/db"),
            (
                "postgres://host/db?ssl-mode=verify-full&statement-cache-capacity=0&ssl-ca=/a%20b.pem&connect_timeout=3",
                "postgres://host/db?sslmode=verify-full&sslrootcert=%2Fa%20b.pem&connect_timeout=3",
            ),
            ("postgres://host/db?options[work_mem]=1MB", "postgres://host/db?options=-c%20work_mem%3D1MB"),
        ] {
            assert_eq!(for_libpq(ours), its);
        }
    }
}
