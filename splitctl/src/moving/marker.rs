//! A row of ours in the stream: once it shows on the other side, everything committed before it does, too.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::database::execute;

/// The marker's table of an owner's move.
pub fn table(owner: &str) -> String {
    format!("splitctl.\"marker_{owner}\"")
}

/// Makes the table, on one side.
pub async fn install(connection: &mut PgConnection, owner: &str) -> Result<()> {
    let table = table(owner);
    let statements = format!(
        "set client_min_messages = warning;
         create schema if not exists splitctl;
         create table if not exists {table} (id integer primary key, token bigint not null);
         comment on table {table} is 'Set on one side and awaited on the other: what was committed before it has arrived.';
         reset client_min_messages"
    );
    execute(connection, statements).await?;
    Ok(())
}

/// Sets the marker; returns what to wait for.
pub async fn set(from: &mut PgConnection, owner: &str) -> Result<i64, sqlx::Error> {
    let table = table(owner);
    let statement = format!(
        "insert into {table} as known (id, token) values (1, 1) on conflict (id) do update set token = known.token + 1 returning token"
    );
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(from).await
}

/// Whether it has come, within this time.
pub async fn arrives(to: &mut PgConnection, owner: &str, token: i64, patience: Duration) -> Result<bool, sqlx::Error> {
    let statement = format!("select exists (select from {} where token >= {token})", table(owner));
    let begun = Instant::now();
    loop {
        if sqlx::query_scalar(AssertSqlSafe(statement.clone())).fetch_one(&mut *to).await? {
            return Ok(true);
        }
        let waited = begun.elapsed();
        if waited > patience {
            return Ok(false);
        }
        // Milliseconds count while writers wait; later nobody does.
        let pause = if waited < Duration::from_secs(1) { Duration::from_micros(500) } else { Duration::from_millis(50) };
        tokio::time::sleep(pause).await;
    }
}
