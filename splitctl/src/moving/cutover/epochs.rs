//! Epochs of event logs. Transaction ids do not carry over to another cluster, so a log begins a new epoch after each
//! switch.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sqlx::query_scalar;

use crate::database::{execute, fetch_value};
use crate::moving::Database;
use crate::names::{Qualified, parse_identifiers, quote_ident};

/// Builds the statements that raise each epoch above all epochs that either side returns or has stored. `epochs` maps a
/// function to the column that it is the default of.
pub async fn raising(from: &mut Database, to: &mut Database, epochs: &BTreeMap<Qualified, String>) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for (function, column) in epochs {
        let mut parts = parse_identifiers(column).unwrap_or_default();
        let field = parts.pop().with_context(|| format!("{function}: the epoch needs a column, as table.column"))?;
        let table: Qualified =
            parts.iter().map(|part| quote_ident(part)).collect::<Vec<_>>().join(".").parse().map_err(anyhow::Error::msg)?;
        let (function, field, table) = (function.sql(), quote_ident(&field), table.sql());
        let newest = format!("select max({field})::bigint from {table}");
        let mut next = 1;
        for database in [&mut *from, &mut *to] {
            let stored: Option<i64> = fetch_value(&mut database.connection, newest.clone()).await?;
            let known = call_as_owner(database, &function).await?;
            next = next.max(known.max(stored).unwrap_or_default() + 1);
        }
        statements.push(format!(
            "create or replace function {function}() returns bigint language sql stable parallel safe as \
             'select {next}::bigint'"
        ));
    }
    Ok(statements)
}

/// The function is the application's code, so its owner runs it.
async fn call_as_owner(database: &mut Database, function: &str) -> Result<Option<i64>> {
    let connection = &mut database.connection;
    let owner: Option<String> = query_scalar(OWNER).bind(format!("{function}()")).fetch_optional(&mut *connection).await?;
    let owner = owner.with_context(|| format!("{function}: the {} has no such function", database.side))?;
    let role = if database.superuser { quote_ident(&owner) } else { "none".to_owned() };
    execute(connection, format!("begin; set local role {role}")).await?;
    let epoch = fetch_value(connection, format!("select {function}()::bigint")).await;
    execute(connection, "rollback").await?;
    Ok(epoch?)
}

const OWNER: &str = "select pg_get_userbyid(proowner)::text from pg_proc where oid = to_regprocedure($1)";
