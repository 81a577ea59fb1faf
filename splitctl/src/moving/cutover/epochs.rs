//! Epochs of event logs. Transaction ids do not carry over to another cluster, so a log begins a new epoch after each
//! switch.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::database::fetch_value;
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
        let newest = format!("select greatest({function}()::bigint, (select max({field}) from {table}))");
        let mut next = 1;
        for database in [&mut *from, &mut *to] {
            let newest: Option<i64> = fetch_value(&mut database.connection, newest.clone()).await?;
            next = next.max(newest.unwrap_or_default() + 1);
        }
        statements.push(format!(
            "create or replace function {function}() returns bigint language sql stable parallel safe as \
             'select {next}::bigint'"
        ));
    }
    Ok(statements)
}
