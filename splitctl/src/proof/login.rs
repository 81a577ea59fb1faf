//! The application's own login on the target.

use std::str::FromStr;

use anyhow::Result;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Error, FromRow, PgConnection, query_as};

use super::session::Setting;
use crate::database::{address, sqlstate};
use crate::moving::Database;

/// Logs in, and returns the settings that the URL gives to its sessions. The inner error says why it fails, and what to do.
pub(super) async fn try_login(url: &str, database: &Database, role: &str) -> Result<Result<Vec<Setting>, String>> {
    let Ok(options) = PgConnectOptions::from_str(url) else {
        return Ok(Err("the login is not a valid Postgres URL: correct it".to_owned()));
    };
    let mut connection = match PgConnection::connect_with(&options.disable_statement_logging()).await {
        Ok(connection) => connection,
        Err(error) => return Ok(Err(explain(url, role, &error))),
    };
    let session: LoggedIn = query_as(SESSION).persistent(false).fetch_one(&mut connection).await?;
    let settings = query_as(OF_THE_URL).persistent(false).fetch_all(&mut connection).await?;
    connection.close().await?;
    let wrong = if session.login != role {
        format!("its role is {}, and the application's role is {role}", session.login)
    } else if session.database != database.identity.database {
        format!("it leads to another database than the {}", database.address())
    } else if session.is_standby {
        "it leads to a standby, which takes no writes".to_owned()
    } else {
        return Ok(Ok(settings));
    };
    Ok(Err(format!("{}: {wrong}: correct `login` in the manifest", address(url))))
}

/// What the server says of a session.
#[derive(FromRow)]
struct LoggedIn {
    login: String,
    database: i64,
    is_standby: bool,
}

/// Says why a login fails, and what to do.
fn explain(url: &str, role: &str, error: &Error) -> String {
    let message = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    let address = address(url);
    let next = match sqlstate(error).as_deref() {
        Some("28P01") => "give the role the application's password on the target: `alter role … password …`",
        Some("28000") => "allow the login: `alter role … login`, and a line for it in pg_hba.conf",
        Some("42501") => "`grant connect on database … to …`",
        Some("3D000") => "correct the database's name in the login's URL",
        Some("53300") => "raise max_connections, or the connection limit of the role or the database",
        Some(_) => "correct this on the target's server",
        None => "correct the address, or let this machine reach it",
    };
    format!("{address}: {role} cannot log in on the target ({message}): {next}")
}

const SESSION: &str = r"
    select
        session_user::text as login,
        (select d.oid::int8 from pg_database d where d.datname = current_database()) as database,
        pg_is_in_recovery() as is_standby";

/// Our driver sets some of them, whatever the URL says.
const OF_THE_URL: &str = r"
    select s.name, current_setting(s.name) as value
    from pg_settings s
    where s.source = 'client'
      and s.context = 'user'
      and s.name not in ('TimeZone', 'DateStyle', 'client_encoding', 'extra_float_digits', 'application_name')";
