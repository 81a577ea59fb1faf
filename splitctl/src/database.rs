//! Connections to Postgres, and the session settings that all of them share.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::TryStreamExt;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, FromRow, PgConnection, query_as, query_scalar};

use crate::{endpoint, sockets};

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

/// No statement waits for ever: a session that changes rights and stays open would stop every command. Where writers queue
/// behind a lock, [`crate::moving::fence::patiently`] sets less, and this again.
pub const LOCK_TIMEOUT: &str = "set lock_timeout = '10s'";

/// Commits from now on do not wait until they are on the disk. The next one that does brings all before it there: so it is
/// for many small commits, before one that counts.
pub const AWAIT_NO_DISK: &str = "set synchronous_commit = off";
/// Undoes [`AWAIT_NO_DISK`].
pub const AWAIT_DISK: &str = "set synchronous_commit = on";

/// Resets every other setting that the role or the database has, and the time-out that only some versions know. What
/// [`SETTINGS`] has set comes from the session by now.
const RESETS: &str = r"
    select set_config(s.name, s.boot_val, false)
    from pg_settings s
    where (s.source in ('global', 'database', 'user', 'database user') or s.name = 'transaction_timeout')
      and s.boot_val is not null
      and (s.context = 'user' or s.context = 'superuser' and current_setting('is_superuser') = 'on')";

/// How long one of several hosts may take to answer before the next one is tried.
const NEXT_HOST: Duration = Duration::from_secs(5);

const TAKES_WRITES: &str = "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";

/// Connects as an operator. The session's `search_path` holds no schema of the user, so every statement names the schema.
///
/// # Errors
/// If the database does not answer: its host, port and name, never its password, and the cause.
pub async fn connect(url: &str) -> Result<PgConnection> {
    connect_with(url, None).await
}

/// Does the same, with a setting that only this session knows. It goes with the login, so no statement and no log has it.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(url: &str, setting: Option<(&str, &str)>) -> Result<PgConnection> {
    let url = choose(url).await?;
    let (mut connection, address) = (log_in(&url, setting, endpoint::patience(&url)?).await?, address(&url));
    connection.execute(AssertSqlSafe(format!("{SETTINGS}; {LOCK_TIMEOUT}"))).await?;
    connection.execute(RESETS).await?;
    let version = version(&mut connection).await?;
    ensure!(VERSIONS.contains(&version), "{address} is Postgres {version}; splitctl supports 15 to 18");
    Ok(connection)
}

/// Connects to one server, also if it takes no writes.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_standby(url: &str) -> Result<PgConnection> {
    let mut connection = log_in(url, None, endpoint::patience(url)?.or(Some(NEXT_HOST))).await?;
    connection.execute(AssertSqlSafe(format!("{SETTINGS}; {LOCK_TIMEOUT}"))).await?;
    Ok(connection)
}

/// The URL of the host that takes writes, if a URL names several.
///
/// # Errors
/// If none of them does, with the reasons.
pub async fn choose(url: &str) -> Result<String> {
    let each = endpoint::each_host(url);
    if each.len() == 1 {
        return Ok(url.to_owned());
    }
    let mut others = Vec::new();
    for one in each {
        match takes_writes(&one).await {
            Ok(true) => return Ok(one),
            Ok(false) => others.push(format!("{} is read-only", address(&one))),
            Err(error) => others.push(describe(&error)),
        }
    }
    bail!("none of the hosts takes writes: {}", others.join("; "))
}

async fn takes_writes(url: &str) -> Result<bool> {
    let mut connection = log_in(url, None, endpoint::patience(url)?.or(Some(NEXT_HOST))).await?;
    let takes = query_scalar(TAKES_WRITES).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(takes)
}

async fn log_in(url: &str, setting: Option<(&str, &str)>, patience: Option<Duration>) -> Result<PgConnection> {
    let address = address(url);
    let options = PgConnectOptions::from_str(url).map_err(|_| anyhow!("{address} is not a valid Postgres URL"))?;
    let mut options = options.application_name("splitctl").disable_statement_logging();
    if let Some(setting) = setting {
        options = options.options([setting]);
    }
    let connecting = PgConnection::connect_with(&options);
    let connected = match patience {
        Some(patience) => tokio::time::timeout(patience, connecting).await.map_err(|_| sqlx::Error::PoolTimedOut),
        None => Ok(connecting.await),
    };
    let connection = connected.flatten().with_context(|| format!("{address} does not answer"))?;
    sockets::send_at_once();
    Ok(connection)
}

/// The server's major version.
pub async fn version(connection: &mut PgConnection) -> Result<i32> {
    let number: i32 = query_scalar("select current_setting('server_version_num')::int").fetch_one(connection).await?;
    Ok(number / 10000)
}

/// Host, port and database of a URL: the part without a password.
pub fn address(url: &str) -> String {
    let of_one = |url: &String| {
        let Ok(url) = url::Url::parse(url) else { return "the database".to_owned() };
        let host = url.host_str().unwrap_or("localhost");
        format!("{host}:{}{}", url.port().unwrap_or(5432), url.path())
    };
    endpoint::each_host(url).iter().map(of_one).collect::<Vec<_>>().join(" or ")
}

/// The URL of another database on the same server. Its name needs no escape.
pub fn with_database(url: &str, name: &str) -> String {
    // No part of the URL before the path is parsed: it may name several hosts.
    let begin = url.find("://").map_or(0, |at| at + 3);
    let path = url[begin..].find(['/', '?']).map_or(url.len(), |at| begin + at);
    let query = url[path..].find('?').map_or("", |at| &url[path + at..]);
    format!("{}/{name}{query}", &url[..path])
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

/// How many bytes of rows are sent at a time.
const BATCH: usize = 256 << 10;

/// Copies the rows of a query into a table. `report` gets the rows and the bytes that were sent so far, as text, and
/// says how long to wait before more are sent. Returns the rows and bytes of all.
///
/// # Errors
/// If a side refuses its part. The session that reads can go on after a rollback.
pub async fn copy_rows(
    from: &mut PgConnection,
    query: &str,
    to: &mut PgConnection,
    into: &str,
    mut report: impl FnMut(u64, u64) -> Duration,
) -> Result<(u64, u64)> {
    let mut copy = to.copy_in_raw(&format!("copy {into} from stdin")).await?;
    let mut rows = match from.copy_out_raw(&format!("copy ({query}) to stdout")).await {
        Ok(rows) => rows,
        Err(error) => {
            copy.abort("the source has refused the query").await?;
            return Err(error.into());
        }
    };
    let (mut batch, mut count, mut bytes) = (Vec::with_capacity(BATCH * 2), 0, 0);
    while let Some(row) = rows.try_next().await? {
        batch.extend_from_slice(&row);
        count += 1;
        if batch.len() >= BATCH {
            bytes += batch.len() as u64;
            copy.send(&*batch).await?;
            batch.clear();
            pause(report(count, bytes)).await;
        }
    }
    bytes += batch.len() as u64;
    copy.send(&*batch).await?;
    pause(report(count, bytes)).await;
    Ok((copy.finish().await?, bytes))
}

/// A sleep of no time takes a millisecond.
async fn pause(length: Duration) {
    if !length.is_zero() {
        tokio::time::sleep(length).await;
    }
}

/// What a server answered, if that is the error.
pub fn server_error(error: &anyhow::Error) -> Option<&dyn DatabaseError> {
    error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error)
}

/// An error and its causes in one line. The driver's errors repeat their cause, so a repeated one is left out. They also
/// name a line of the server's own source, which reads as if it were one of the statement.
pub fn describe(error: &anyhow::Error) -> String {
    let from_server = error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()?.as_database_error());
    let lines = from_server.filter_map(|error| error.try_downcast_ref::<PgDatabaseError>()?.line());
    let remarks: Vec<String> = lines.map(|line| format!(" at line {line}")).collect();
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = remarks.iter().fold(cause, |cause, remark| cause.replace(remark, ""));
        if said.is_empty() {
            said = cause;
        } else if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// What to do about an error that says nothing of it.
pub fn advice(error: &anyhow::Error) -> Option<&'static str> {
    let from_server = error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>());
    let waited = from_server.filter_map(sqlstate).any(|state| state == "55P03");
    waited.then_some(
        "Another session holds a lock, or has changed the same rights and is still open. Find it by `select pid, \
         application_name, state, xact_start, query from pg_stat_activity where xact_start < now() - interval '10 s'`, end \
         it, and repeat the command",
    )
}

/// The SQLSTATE of an error, if the server sent one.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(Into::into)
}
