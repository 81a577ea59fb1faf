//! The log `order_events`, read.

use chassis::events::{Position, StoredEvent};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::rows::customer;
use crate::customers::Customer;

struct EventRow {
    order_id: Uuid,
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
            subject: row.order_id,
            version: row.version,
            r#type: row.r#type,
            data: row.data.0,
            occurred_at: row.occurred_at,
            position: Position { epoch: row.epoch, xid, position: row.position },
        })
    }
}

/// The order's events after version `after`, oldest first.
pub async fn history(
    connection: &mut PgConnection,
    order_id: Uuid,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select order_id, version, type, data as "data: _", occurred_at, epoch, xid::text as "xid!", position
        from order_events
        where order_id = $1
          and version > $2
        order by version
        limit $3
        "#,
        order_id,
        after,
        limit,
    );
    rows.fetch_all(connection).await?.into_iter().map(StoredEvent::try_from).collect()
}

/// All orders' events after a place of the log, in its order.
///
/// An event is shown once no transaction that is older than its own is open: such a one could still commit events that
/// come before it, and a reader who had gone past would miss them for ever. Of an older epoch none are to come.
pub async fn feed(connection: &mut PgConnection, after: Position, limit: i64) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select order_id, version, type, data as "data: _", occurred_at, epoch, xid::text as "xid!", position
        from order_events
        where (epoch, xid, position) > ($1, $2::text::xid8, $3)
          and (epoch < order_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
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
        select order_event_epoch() as "epoch!", (pg_snapshot_xmin(pg_current_snapshot())::text::numeric - 1)::text as "xid!"
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
        from order_events
        where epoch = order_event_epoch()
          and xid >= pg_snapshot_xmin(pg_current_snapshot())
        "#,
    )
    .fetch_one(connection)
    .await
}

/// An event as the fold needs it.
pub struct LoggedEvent {
    /// The order's version after it.
    pub version: i64,
    /// The CloudEvents type.
    pub r#type: String,
    /// The order after it.
    pub data: Box<RawValue>,
    /// When it occurred.
    pub occurred_at: DateTime<Utc>,
}

/// An order's events up to a moment, oldest first, and its customer as it is now.
pub async fn events_until(
    connection: &mut PgConnection,
    order_id: Uuid,
    until: DateTime<Utc>,
    in_view: bool,
) -> Result<(Vec<LoggedEvent>, Option<Customer>), sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select
            e.version, e.type, e.data as "data: Json<Box<RawValue>>", e.occurred_at,
            o.user_id, c.name as "name?", c.status as "status?", c.version as "customer_version?"
        from order_events e
        join orders o on o.id = e.order_id
        left join customers c on c.id = o.user_id and $3::boolean
        where e.order_id = $1
          and e.occurred_at <= $2
        order by e.version
        "#,
        order_id,
        until,
        in_view,
    );
    let mut found = None;
    let mut events = Vec::new();
    for row in rows.fetch_all(connection).await? {
        found = customer(row.user_id, row.name, row.status, row.customer_version);
        events.push(LoggedEvent {
            version: row.version,
            r#type: row.r#type,
            data: row.data.0,
            occurred_at: row.occurred_at,
        });
    }
    Ok((events, found))
}
