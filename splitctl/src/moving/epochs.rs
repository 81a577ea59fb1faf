//! Epochs of event logs: a log that goes on elsewhere begins a new one there, since transaction ids do not carry over.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sqlx::AssertSqlSafe;

use super::side::Side;
use crate::names::{Qualified, parse_identifiers, quote_ident};

/// Statements that raise the epochs of event logs above all that either side gives out or has stored. `epochs` has for each
/// function the column it is the default of.
pub async fn raised(from: &mut Side, to: &mut Side, epochs: &BTreeMap<Qualified, String>) -> Result<String> {
    let mut statements = Vec::new();
    for (function, column) in epochs {
        let mut parts = parse_identifiers(column).unwrap_or_default();
        let field = parts.pop().with_context(|| format!("the epoch {function} needs a column, as table.column"))?;
        let table: Qualified =
            parts.iter().map(|part| quote_ident(part)).collect::<Vec<_>>().join(".").parse().map_err(anyhow::Error::msg)?;
        let ask = format!(
            "select greatest({}()::bigint, (select max({}) from {}))",
            function.sql(),
            quote_ident(&field),
            table.sql()
        );
        let here: i64 = sqlx::query_scalar(AssertSqlSafe(ask.clone())).fetch_one(&mut from.connection).await?;
        let there: i64 = sqlx::query_scalar(AssertSqlSafe(ask)).fetch_one(&mut to.connection).await?;
        statements.push(format!(
            "create or replace function {}() returns bigint language sql stable parallel safe as 'select {}::bigint'",
            function.sql(),
            here.max(there) + 1
        ));
    }
    statements.push("select 1".to_owned());
    Ok(statements.join("; "))
}
