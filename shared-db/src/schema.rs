//! The shared schema's migrations, and whether a database has them.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use crate::database::Database;
use crate::error::DatabaseError;
use crate::run;

/// How often [`report_until_ready`] checks.
const RETRY: Duration = Duration::from_millis(500);

/// The migrations of the shared schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Why the service cannot use the database yet.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The database lacks the newest migration that this program was built for. Migrations after that one do not matter.
    #[error("migration {0} has not been applied: run `sqlx migrate run`")]
    Missing(i64),
}

/// The version of the newest migration that this program was built for.
pub fn newest_migration() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Checks that the database answers and has the newest migration that this program needs.
///
/// # Errors
/// [`SchemaError`], for the check that failed.
pub async fn check_schema(database: &Database) -> Result<(), SchemaError> {
    let needed = newest_migration();
    match run!(database, connection => is_applied(connection, needed)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(SchemaError::Missing(needed)),
        // No migration has been applied: the table of migrations does not exist, or the role has no right on it.
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

/// An error and its sources, one level after the other.
fn chain(error: &dyn std::error::Error) -> String {
    let levels = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let mut levels: Vec<String> = levels.collect();
    // A transparent error repeats its source.
    levels.dedup();
    levels.join(": ")
}

/// Waits until the service can use the database, and logs what is missing whenever that changes.
pub async fn report_until_ready(database: Database) {
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
