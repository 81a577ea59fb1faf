//! The table `open_orders_replica`, how far it has been brought, and the view `open_orders`.

use chassis::events::consumer::Received;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::cursors::FEED;
use crate::open_orders::Order;

/// How many open orders the user has, by the view.
pub async fn count_open_orders(connection: &mut PgConnection, user_id: Uuid) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(r#"select open_count as "count!" from open_orders where user_id = $1"#, user_id);
    Ok(count.fetch_optional(connection).await?.unwrap_or(0))
}

/// Orders as columns, each once.
struct Columns {
    ids: Vec<Uuid>,
    user_ids: Vec<Uuid>,
    open: Vec<bool>,
    versions: Vec<i64>,
}

impl Columns {
    fn new(orders: &[Order]) -> Self {
        Self {
            ids: orders.iter().map(|order| order.id).collect(),
            user_ids: orders.iter().map(|order| order.user_id).collect(),
            open: orders.iter().map(|order| order.is_open).collect(),
            versions: orders.iter().map(|order| order.version).collect(),
        }
    }
}

/// Stores those of the orders that are newer than what is known, and with them where the feed goes on, if it does. Each order
/// may be there once only.
pub async fn store_orders(connection: &mut PgConnection, orders: &[Order], cursor: Option<&str>) -> Result<(), sqlx::Error> {
    let columns = Columns::new(orders);
    sqlx::query!(
        r#"
        with stored as (
            insert into open_orders_replica as known (order_id, user_id, is_open, version)
            select order_id, user_id, is_open, version
            from unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::bigint[]) as news (order_id, user_id, is_open, version)
            on conflict (order_id) do update
            set user_id = excluded.user_id, is_open = excluded.is_open, version = excluded.version,
                refreshed_at = clock_timestamp()
            where excluded.version > known.version
        )
        insert into users_cursors (log, cursor)
        select $5, $6
        where $6::text is not null
        on conflict (log) do update
        set cursor = excluded.cursor, stored_at = clock_timestamp()
        "#,
        &columns.ids,
        &columns.user_ids,
        &columns.open,
        &columns.versions,
        FEED,
        cursor,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The database's clock.
pub async fn now(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(connection).await
}

/// Stores orders of a snapshot that began at `begun`: over what is known, unless that is newer and came since.
pub async fn refresh_orders(
    connection: &mut PgConnection,
    orders: &[Order],
    begun: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let columns = Columns::new(orders);
    sqlx::query!(
        r#"
        insert into open_orders_replica as known (order_id, user_id, is_open, version)
        select order_id, user_id, is_open, version
        from unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::bigint[]) as news (order_id, user_id, is_open, version)
        on conflict (order_id) do update
        set user_id = excluded.user_id, is_open = excluded.is_open, version = excluded.version,
            refreshed_at = clock_timestamp()
        where excluded.version >= known.version or known.refreshed_at < $5
        "#,
        &columns.ids,
        &columns.user_ids,
        &columns.open,
        &columns.versions,
        begun,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Closes the orders that a snapshot of the open ones, begun at `begun`, did not have. Their rows stay: an event that comes
/// late finds the version in them.
pub async fn close_others(connection: &mut PgConnection, begun: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!("update open_orders_replica set is_open = false where is_open and refreshed_at < $1", begun);
    Ok(done.execute(connection).await?.rows_affected())
}

/// Keeps an event that cannot be applied, in the place of one that was kept before under the same id.
pub async fn park_event(
    connection: &mut PgConnection,
    id: &str,
    r#type: &str,
    data: &str,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into users_parked_events (id, type, data, error)
        values ($1, $2, $3, $4)
        on conflict (id) do update
        set type = excluded.type, data = excluded.data, error = excluded.error, parked_at = clock_timestamp()
        "#,
        id,
        r#type,
        data,
        error,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The events that are kept, those kept first first.
pub async fn parked_events(connection: &mut PgConnection) -> Result<Vec<Received>, sqlx::Error> {
    let rows =
        sqlx::query!("select id, type, data from users_parked_events order by parked_at, id").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| Received { id: row.id, r#type: row.r#type, time: None, data: row.data }).collect())
}

/// How many events are kept.
pub async fn count_parked_events(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from users_parked_events"#).fetch_one(connection).await
}

/// Keeps an event no longer.
pub async fn unpark_event(connection: &mut PgConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from users_parked_events where id = $1", id).execute(connection).await?;
    Ok(())
}
