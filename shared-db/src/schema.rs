//! The shared schema's migrations, and whether a database has them.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use tokio::time::timeout;

use crate::database::Database;
use crate::error::DatabaseError;
use crate::switches::Switch;

/// After this silence the server closes the connection for checks: nobody checks any more.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

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

/// Checks that the database answers within a second and has the newest migration that this program needs. It uses a
/// connection of its own, so a busy pool does not fail it.
///
/// # Errors
/// [`SchemaError`], for the check that failed.
pub async fn check_schema(database: &Database) -> Result<(), SchemaError> {
    let (limit, database) = (database.check_timeout(), database.clone());
    // In a task of its own: a client that leaves meanwhile does not break the connection.
    let checked = tokio::spawn(timeout(limit, async move { check(&database, newest_migration()).await })).await;
    let too_long = || Err(DatabaseError::NoConnection("the check took too long").into());
    checked.ok().and_then(Result::ok).unwrap_or_else(too_long)
}

async fn check(database: &Database, needed: i64) -> Result<(), SchemaError> {
    let mut turn = database.probe().turn().await;
    if turn.has_passed() {
        return Ok(());
    }
    loop {
        let switch = database.switch().await?;
        let kept = turn.take(switch.side);
        let is_new = kept.is_none();
        let mut connection = match kept {
            Some(kept) => kept,
            None => database.pool(switch.side).unpooled(SILENCE).await?,
        };
        match ask(database, switch, &mut connection, needed).await {
            Ok(Answer::Moved) => {}
            // Reads can be answered, so it is ready for them.
            Ok(Answer::OfStandby) => {
                turn.pass_on_standby();
                return Ok(());
            }
            Ok(answer) => {
                if turn.was_on_standby() {
                    database.pool(switch.side).manager().leave_standby();
                }
                turn.keep(switch.side, connection, answer == Answer::Applied);
                return if answer == Answer::Applied { Ok(()) } else { Err(SchemaError::Missing(needed)) };
            }
            // No migration has been applied: the table of migrations does not exist, or the role has no right on it.
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P01" | "42501")) => {
                return Err(SchemaError::Missing(needed));
            }
            Err(error) if is_new => return Err(DatabaseError::from(error).into()),
            // The connection may have broken since the last check: the next round opens another one.
            Err(_) => {}
        }
    }
}

/// What the database says of the newest migration.
#[derive(PartialEq, Eq)]
enum Answer {
    Applied,
    Missing,
    /// It is applied, and the server is a standby: after a failover, or by a wrong address.
    OfStandby,
    /// The tables have left this side.
    Moved,
}

async fn ask(
    database: &Database,
    switch: Switch,
    connection: &mut PgConnection,
    needed: i64,
) -> Result<Answer, sqlx::Error> {
    if !database.is_newest(switch, connection).await? {
        return Ok(Answer::Moved);
    }
    Ok(match find_migration(connection, needed).await? {
        (false, _) => Answer::Missing,
        (true, false) => Answer::Applied,
        (true, true) => Answer::OfStandby,
    })
}

/// Whether a migration is applied, and whether the server is a standby.
#[expect(clippy::disallowed_methods, reason = "both services ask it, each under its own role")]
async fn find_migration(connection: &mut PgConnection, version: i64) -> Result<(bool, bool), sqlx::Error> {
    const QUESTION: &str = "
        select exists (select 1 from _sqlx_migrations where version = $1 and success), pg_is_in_recovery()";
    sqlx::query_as(QUESTION).bind(version).fetch_one(connection).await
}
