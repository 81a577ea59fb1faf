//! The log `user_events`, read.

use chassis::events::{Position, StoredEvent};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

struct EventRow {
    user_id: Uuid,
    version: i64,
    r#type: String,
    data: Json<Box<RawValue>>,
    occurred_at: DateTime<Utc>,
    epoch: i64,
    xid: String,
    position: i64,
}

impl TryFrom<EventRow> for StoredEvent {
    type Error = sqlx::Error;

    fn try_from(row: EventRow) -> Result<Self, sqlx::Error> {
        let xid = row.xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Self {
            subject: row.user_id,
            version: row.version,
            r#type: row.r#type,
            data: row.data.0,
            occurred_at: row.occurred_at,
            position: Position { epoch: row.epoch, xid, position: row.position },
        })
    }
}

/// The user's events after version `after`, oldest first.
pub async fn history(
    connection: &mut PgConnection,
    user_id: Uuid,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select user_id, version, type, data as "data: _", occurred_at, epoch, xid::text as "xid!", position
        from user_events
        where user_id = $1
          and version > $2
        order by version
        limit $3
        "#,
        user_id,
        after,
        limit,
    );
    rows.fetch_all(connection).await?.into_iter().map(StoredEvent::try_from).collect()
}

/// All users' events after a place of the log, in its order.
///
/// An event is shown once no transaction that is older than its own is open: such a one could still commit events that
/// come before it, and a reader who had gone past would miss them for ever. Of an older epoch none are to come.
pub async fn feed(connection: &mut PgConnection, after: Position, limit: i64) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select user_id, version, type, data as "data: _", occurred_at, epoch, xid::text as "xid!", position
        from user_events
        where (epoch, xid, position) > ($1, $2::text::xid8, $3)
          and (epoch < user_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
        order by epoch, xid, position
        limit $4
        "#,
        after.epoch,
        after.xid.to_string(),
        after.position,
        limit,
    );
    rows.fetch_all(connection).await?.into_iter().map(StoredEvent::try_from).collect()
}

/// The place behind all events that were committed by now: those of older transactions than any that is open.
pub async fn end(connection: &mut PgConnection) -> Result<Position, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        select user_event_epoch() as "epoch!", (pg_snapshot_xmin(pg_current_snapshot())::text::numeric - 1)::text as "xid!"
        "#,
    );
    let row = row.fetch_one(connection).await?;
    let xid = row.xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Position { epoch: row.epoch, xid, position: i64::MAX })
}

/// For how many seconds the oldest committed event has been held back from the feed.
pub async fn withheld_seconds(connection: &mut PgConnection) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select coalesce(greatest(extract(epoch from now() - min(occurred_at)), 0), 0)::float8 as "seconds!"
        from user_events
        where epoch = user_event_epoch()
          and xid >= pg_snapshot_xmin(pg_current_snapshot())
        "#,
    )
    .fetch_one(connection)
    .await
}
