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

/// Stores the orders that are newer than the replica's. Each order may be there once only.
///
/// `begun` is the begin of the snapshot that they come from. A row that no event has changed since then is replaced, too.
pub async fn store_orders(
    connection: &mut PgConnection,
    orders: &[Order],
    begun: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/db/open_orders/store.sql",
        &orders.iter().map(|order| order.id).collect::<Vec<_>>(),
        &orders.iter().map(|order| order.user_id).collect::<Vec<_>>(),
        &orders.iter().map(|order| order.is_open).collect::<Vec<_>>(),
        &orders.iter().map(|order| order.version).collect::<Vec<_>>(),
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
