//! Whether the tables are being switched just now. Meanwhile writers wait for the lock of the switch, and others for the
//! writers' connections. Both waits last longer then: a switch must fail no request.

use sqlx::PgConnection;
use tokio::time::{Instant, timeout};

use crate::answer::by;
use crate::database::Database;
use crate::schema::SILENCE;
use crate::switches::Switch;

/// Whether a switch is under way, for a request without a connection: it looks by the connection for checks of health, and
/// many such requests at once look once.
pub(crate) async fn is_switching(database: &Database) -> bool {
    let Some(sightings) = database.sightings() else { return false };
    if let Some(known) = sightings.known() {
        return known;
    }
    let (limit, database) = (database.check_timeout(), database.clone());
    // In a task of its own: a client that leaves meanwhile does not break the connection.
    let looked = tokio::spawn(timeout(limit, async move { look(&database).await })).await;
    matches!(looked, Ok(Ok(Some(true))))
}

/// The same for a statement that has waited too long for a lock, on its connection.
///
/// # Errors
/// The question's.
pub(crate) async fn is_seen_by(
    database: &Database,
    refused: &mut PgConnection,
    limit: Instant,
) -> Result<bool, sqlx::Error> {
    let Some(sightings) = database.sightings() else { return Ok(false) };
    if sightings.known() == Some(true) {
        return Ok(true);
    }
    let seen = by(Some(limit), is_locked(refused)).await?;
    sightings.note(seen);
    Ok(seen)
}

async fn look(database: &Database) -> Option<bool> {
    let (sightings, side) = (database.sightings()?, database.known_switch().unwrap_or(Switch::NONE).side);
    let mut turn = database.probe().turn().await;
    // Another request has looked while this one waited for its turn.
    if let Some(known) = sightings.known() {
        return Some(known);
    }
    let mut connection = match turn.take(side) {
        Some(kept) => kept,
        None => database.pool(side).unpooled(SILENCE).await.ok()?,
    };
    let seen = is_locked(&mut connection).await.ok()?;
    turn.put_back(side, connection);
    sightings.note(seen);
    Some(seen)
}

/// Whether one of the role's tables has the lock that a switch takes: it admits readers and no writers.
#[expect(clippy::disallowed_methods, reason = "the same for each role, and no statement on a table")]
async fn is_locked(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (
             select 1
             from pg_locks
             where locktype = 'relation'
               and mode = 'ShareRowExclusiveLock'
               and granted
               and pid <> pg_backend_pid()
               and database = (select oid from pg_database where datname = current_database())
               and has_table_privilege(relation, 'insert, update, delete')
         )",
    )
    .fetch_one(connection)
    .await
}
