//! Checks whether a role may run a statement: Postgres plans it, which checks all rights and runs nothing.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::data::{Statement, summary};

/// A message for each statement that `role`, the user of `connection`, must not run.
pub async fn denied<'a>(
    connection: &mut PgConnection,
    role: &str,
    statements: impl Iterator<Item = &'a Statement>,
) -> Result<Vec<String>> {
    // A generic plan does not depend on the parameters, so all of them can be null.
    connection.execute("set plan_cache_mode = force_generic_plan").await?;
    let mut denied = Vec::new();
    for statement in statements {
        if let Err(error) = plan(connection, statement).await {
            let reason = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            denied.push(format!(
                "{reason} (as {role}): {}\n  Read the other service's published view, or grant {role} the right on its own \
                 table in a migration",
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

#[cfg(test)]
mod tests {
    use dev::postgres::{ORDERS_ROLE, TestDatabase, connect};

    use super::*;

    fn statement(query: &str, parameters: usize) -> Statement {
        let data = serde_json::json!({ "query": query, "describe": { "parameters": { "Right": parameters } } });
        serde_json::from_value(data).expect("a statement")
    }

    /// sqlx accepts the second and the third: they return no columns.
    #[tokio::test]
    async fn every_statement_that_the_role_may_not_run_is_named_with_its_table() {
        let database = TestDatabase::create();
        let mut connection = connect(&database.url_as(ORDERS_ROLE)).await.expect("the role logs in");
        let statements = [
            statement("select name from users where id = $1", 1),
            statement("update users set name = $1", 1),
            statement("with gone as (delete from order_events where order_id = $1) insert into orders select", 1),
            statement("select name from customers where id = $1", 1),
            statement("update orders set status = $2 where id = $1", 2),
            statement("select 1", 0),
        ];
        let denied = denied(&mut connection, ORDERS_ROLE, statements.iter()).await.expect("asked");
        let expected = [("select name from users", "users"), ("update users", "users"), ("with gone as", "order_events")];
        assert_eq!(denied.len(), expected.len(), "{denied:?}");
        for (denied, (start, table)) in denied.iter().zip(expected) {
            assert!(denied.contains(start) && denied.contains(&format!("permission denied for table {table}")), "{denied}");
            assert!(denied.contains(ORDERS_ROLE), "{denied}");
        }
    }
}
