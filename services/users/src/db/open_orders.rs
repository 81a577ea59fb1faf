//! The table `open_orders_replica` and the view `open_orders`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::Order;

/// How many open orders the user has, by the view.
pub async fn count_open_orders(connection: &mut PgConnection, user_id: Uuid) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(r#"select open_count as "count!" from open_orders where user_id = $1"#, user_id);
    Ok(count.fetch_optional(connection).await?.unwrap_or(0))
}

/// Orders as arrays of columns, for `unnest`.
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

/// Stores the orders that are newer than the replica's. Each order may be there once only.
pub async fn store_orders(connection: &mut PgConnection, orders: &[Order]) -> Result<(), sqlx::Error> {
    let columns = Columns::new(orders);
    sqlx::query!(
        r#"
        insert into open_orders_replica as known (order_id, user_id, is_open, version)
        select order_id, user_id, is_open, version
        from unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::bigint[]) as news (order_id, user_id, is_open, version)
        on conflict (order_id) do update
        set user_id = excluded.user_id, is_open = excluded.is_open, version = excluded.version,
            refreshed_at = clock_timestamp()
        where excluded.version > known.version
        "#,
        &columns.ids,
        &columns.user_ids,
        &columns.open,
        &columns.versions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores orders of a snapshot that began at `begun`, unless an event has brought a newer version since.
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

/// Closes the orders that a snapshot of the open ones, begun at `begun`, did not contain. Their rows stay, so that a late
/// event finds the version.
pub async fn close_other_orders(connection: &mut PgConnection, begun: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!("update open_orders_replica set is_open = false where is_open and refreshed_at < $1", begun)
        .execute(connection)
        .await?;
    Ok(())
}
