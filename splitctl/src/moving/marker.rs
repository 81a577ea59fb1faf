//! The marker: a row of splitctl in the stream. When it arrives on the other side, everything committed before it is there.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection, query_scalar};

use crate::database::{execute, fetch_value};

/// The marker's table, for an owner's move.
pub fn table(owner_name: &str) -> String {
    format!("splitctl.\"marker_{owner_name}\"")
}

/// Creates the table.
pub async fn create(connection: &mut PgConnection, owner_name: &str) -> Result<()> {
    let table = table(owner_name);
    let statements = format!(
        "create schema if not exists splitctl;
         create table if not exists {table} (id integer primary key, token bigint not null);
         comment on table {table} is 'When a token arrives on the other side, everything committed before it is there.'"
    );
    Ok(execute(connection, statements).await?)
}

/// Drops the table.
pub async fn drop(connection: &mut PgConnection, owner_name: &str) -> Result<()> {
    Ok(execute(connection, format!("drop table if exists {}", table(owner_name))).await?)
}

/// Sets the marker, and returns the token to wait for.
pub async fn set(from: &mut PgConnection, owner_name: &str) -> Result<i64, sqlx::Error> {
    let statement = format!(
        "insert into {} as known (id, token)
         values (1, 1)
         on conflict (id) do update set token = known.token + 1
         returning token",
        table(owner_name)
    );
    fetch_value(from, statement).await?.ok_or(sqlx::Error::RowNotFound)
}

/// Waits for a token. Returns whether it arrived in time.
pub async fn wait(to: &mut PgConnection, owner_name: &str, token: i64, patience: Duration) -> Result<bool, sqlx::Error> {
    let statement = format!("select exists (select from {} where token >= $1)", table(owner_name));
    let begun = Instant::now();
    loop {
        if query_scalar(AssertSqlSafe(statement.clone())).bind(token).fetch_one(&mut *to).await? {
            return Ok(true);
        }
        let waited = begun.elapsed();
        if waited > patience {
            return Ok(false);
        }
        // Writers wait during the first second of a switch, so it polls fast.
        let pause = if waited < Duration::from_secs(1) { Duration::from_micros(500) } else { Duration::from_millis(50) };
        tokio::time::sleep(pause).await;
    }
}
