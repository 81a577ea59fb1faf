//! The table `open_orders_replica` and the view `open_orders`.

use chrono::{DateTime, Utc};
use shared_db::Connection;
use uuid::Uuid;

use crate::domain::Order;

/// How many open orders the user has, by the view.
pub async fn count_open_orders(connection: &mut Connection, user_id: Uuid) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(r#"select open_count as "count!" from open_orders where user_id = $1"#, user_id);
    Ok(count.fetch_optional(connection).await?.unwrap_or(0))
}

/// Stores the orders that are newer than the replica's. Each order may be there once only.
pub async fn store_orders(connection: &mut Connection, orders: &[Order]) -> Result<(), sqlx::Error> {
    let Columns { ids, user_ids, are_open, versions } = Columns::new(orders);
    sqlx::query_file!("src/db/open_orders/store.sql", &ids, &user_ids, &are_open, &versions,).execute(connection).await?;
    Ok(())
}

/// Stores the orders of a snapshot that began at `begun`. A row that no event has changed since then is replaced, too, even
/// by an older version.
pub async fn refill_orders(connection: &mut Connection, orders: &[Order], begun: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let Columns { ids, user_ids, are_open, versions } = Columns::new(orders);
    sqlx::query_file!("src/db/open_orders/refill.sql", &ids, &user_ids, &are_open, &versions, begun,)
        .execute(connection)
        .await?;
    Ok(())
}

/// Orders as arrays, one for each column.
struct Columns {
    ids: Vec<Uuid>,
    user_ids: Vec<Uuid>,
    are_open: Vec<bool>,
    versions: Vec<i64>,
}

impl Columns {
    fn new(orders: &[Order]) -> Self {
        Self {
            ids: orders.iter().map(|order| order.id).collect(),
            user_ids: orders.iter().map(|order| order.user_id).collect(),
            are_open: orders.iter().map(|order| order.is_open).collect(),
            versions: orders.iter().map(|order| order.version).collect(),
        }
    }
}

/// Closes the orders that a snapshot of the open ones, begun at `begun`, did not contain. Their rows stay, so that a late
/// event finds the version.
pub async fn close_other_orders(connection: &mut Connection, begun: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!("update open_orders_replica set is_open = false where is_open and refreshed_at < $1", begun)
        .execute(connection)
        .await?;
    Ok(())
}
