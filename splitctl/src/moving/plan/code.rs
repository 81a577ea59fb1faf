//! Tables whose rows run the application's code when they are written.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, query_as};

use super::{CHECKS, Found};
use crate::moving::{Database, relations};
use crate::names::Qualified;

/// Those of a target's tables whose rows call functions that no superuser owns, for generated columns, checks or domains.
pub async fn tables_calling(target: &mut Database, tables: &[Qualified]) -> Result<Vec<Qualified>> {
    let mut calling = Vec::new();
    // As a rule, none of them does.
    if calls_code(target, tables).await? {
        for table in tables {
            if calls_code(target, std::slice::from_ref(table)).await? {
                calling.push(table.clone());
            }
        }
    }
    Ok(calling)
}

async fn calls_code(target: &mut Database, tables: &[Qualified]) -> Result<bool> {
    let check = CHECKS.check.iter().find(|check| check.name == "code").context("no check is named code")?;
    let oids = relations::oids(&mut target.connection, tables).await?;
    // It uses no other value than the last: whether roles of few rights call the functions in any case.
    let called = query_as::<_, Found>(AssertSqlSafe(check.statement.as_str())).bind(oids).bind(false).bind("");
    let called = called.bind(Vec::<String>::new()).bind(false).fetch_all(&mut target.connection).await?;
    Ok(!called.is_empty())
}
