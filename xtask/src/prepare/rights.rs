//! Whether a role may run a statement: Postgres is asked to plan it, which checks every right and runs nothing.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::data::{Statement, summary};

/// Says of every statement that `role`, as whom `connection` is logged in, may not run: which, why, and what to do.
pub async fn denied<'a>(
    connection: &mut PgConnection,
    role: &str,
    statements: impl Iterator<Item = &'a Statement>,
) -> Result<Vec<String>> {
    // A plan for values not known yet: the parameters can all be null.
    connection.execute("set plan_cache_mode = force_generic_plan").await?;
    let mut denied = Vec::new();
    for statement in statements {
        if let Err(error) = plan(connection, statement).await {
            let reason = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            denied.push(format!(
                "{reason} (as {role}): {}\n  Read what the other service publishes in a view, or grant {role} what it lacks on a table of its own, in a migration",
                summary(&statement.query),
            ));
        }
    }
    Ok(denied)
}

async fn plan(connection: &mut PgConnection, statement: &Statement) -> Result<(), sqlx::Error> {
    connection.execute(AssertSqlSafe(format!("prepare asked as {}", statement.query))).await?;
    let values = vec!["null"; statement.parameters()].join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let planned = connection.execute(AssertSqlSafe(format!("explain execute asked {values}"))).await;
    connection.execute("deallocate asked").await?;
    planned.map(drop)
}
