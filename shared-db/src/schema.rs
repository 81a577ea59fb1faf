//! The shared schema's migrations, and whether a database has them.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use crate::{DatabaseError, run};

/// How often a database that is not ready is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// The migrations of the shared schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Why the database cannot be used yet.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It does not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It answers, but lacks what this program was built for. Newer migrations than that are fine.
    #[error("migration {0} has not been applied: run `sqlx migrate run`")]
    Missing(i64),
}

/// Version of the newest migration that this program was built for.
pub fn newest_migration() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Checks that the database answers and has the newest migration that this program needs.
///
/// # Errors
/// [`SchemaError`] tells which of the two fails.
pub async fn check_schema(database: &crate::Database) -> Result<(), SchemaError> {
    let needed = newest_migration();
    match run!(database, connection => is_applied(connection, needed)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(SchemaError::Missing(needed)),
        // No table of migrations, or no right on it: not one of them has been applied.
        Err(DatabaseError::Unavailable(sqlx::Error::Database(error)))
            if matches!(error.code().as_deref(), Some("42P01" | "42501")) =>
        {
            Err(SchemaError::Missing(needed))
        }
        Err(error) => Err(error.into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "both services ask it, each under its own role")]
async fn is_applied(connection: &mut PgConnection, version: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from _sqlx_migrations where version = $1 and success)")
        .bind(version)
        .fetch_one(connection)
        .await
}

/// An error and its sources, one level after the other: why it cannot be used, and not only that.
fn chain(error: &dyn std::error::Error) -> String {
    let levels = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let mut levels: Vec<String> = levels.collect();
    // Transparent errors repeat their source.
    levels.dedup();
    levels.join(": ")
}

/// Logs until the database can be used, what it lacks when that changes, and then that it is ready.
pub async fn report_until_ready(database: crate::Database) {
    let mut reported = String::new();
    while let Err(error) = check_schema(&database).await {
        let lack = chain(&error);
        if lack != reported {
            tracing::warn!(error = lack, "waiting for the database");
            reported = lack;
        }
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!("the database is ready");
}
