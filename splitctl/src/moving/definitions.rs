//! An event trigger refuses changes of the tables' definitions during a move. Only a superuser may create one; without it,
//! the comparison of the definitions before each step finds a change.

use anyhow::Result;

use super::relations;
use super::side::Database;
use crate::database::execute;
use crate::names::Qualified;

/// Creates the event trigger for the tables and their partitions, if splitctl's role may.
pub async fn guard(database: &mut Database, owner_name: &str, tables: &[Qualified]) -> Result<()> {
    if !database.superuser {
        return Ok(());
    }
    let oids = relations::oids(&mut database.connection, tables).await?;
    let oids = oids.iter().map(|oid| oid.0.to_string()).collect::<Vec<_>>().join(", ");
    let statements = GUARD.replace("{name}", &name(owner_name)).replace("{oids}", &oids);
    Ok(execute(&mut database.connection, statements).await?)
}

/// Drops the event trigger.
pub async fn unguard(database: &mut Database, owner_name: &str) -> Result<()> {
    if !database.superuser {
        return Ok(());
    }
    let name = name(owner_name);
    let drop = format!("drop event trigger if exists {name}; drop function if exists splitctl.{name}()");
    Ok(execute(&mut database.connection, drop).await?)
}

fn name(owner_name: &str) -> String {
    format!("splitctl_definitions_{owner_name}")
}

const GUARD: &str = include_str!("definitions.sql");
