//! Epochs of event logs: a log that goes on elsewhere begins a new one there, since transaction ids do not carry over.

use anyhow::Result;
use sqlx::AssertSqlSafe;

use super::side::Side;
use crate::names::Qualified;

/// Statements that raise the epochs of event logs above all that either side has.
pub async fn raised(from: &mut Side, to: &mut Side, functions: impl Iterator<Item = &Qualified>) -> Result<String> {
    let mut statements = Vec::new();
    for function in functions {
        let ask = format!("select {}()::bigint", function.sql());
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
