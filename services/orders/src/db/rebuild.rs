//! The statements of `orders rebuild`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::events::select_logged;
use super::rows::Lines;
use crate::domain::Order;
use crate::events::Logged;

/// An estimate of how many orders exist. A count would take nearly as long as the rebuild itself.
pub async fn estimate_orders(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let estimate = sqlx::query_scalar!(
        r#"
        select greatest(reltuples, 0)::bigint as "estimate!"
        from pg_class
        where oid = 'orders'::regclass
        "#,
    );
    Ok(estimate.fetch_one(connection).await?.unsigned_abs())
}

/// The ids, in order, of at most `limit` orders above `after` that have a row or an event.
pub async fn next_ids(connection: &mut PgConnection, after: Uuid, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_file_scalar!("src/db/rebuild/next_ids.sql", after, limit,).fetch_all(connection).await
}

/// The orders among these whose lines are not numbered 1, 2, 3 …
pub async fn misnumbered(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select order_id
        from order_items
        where order_id = any($1)
        group by order_id
        having min(line_no) <> 1
            or max(line_no) <> count(*)
        "#,
        ids,
    )
    .fetch_all(connection)
    .await
}

/// The events of these orders, by id and version.
pub async fn events_by_id(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Logged>, sqlx::Error> {
    select_logged!("where e.order_id = any($1) order by e.order_id, e.version", ids).fetch_all(connection).await
}

/// Locks the order's row, if it exists, so that no request changes it before the transaction ends.
pub async fn lock_order(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("select id from orders where id = $1 for update", id).fetch_optional(connection).await?;
    Ok(())
}

/// Writes the order, as its events say it, over its rows. Run it in a transaction.
pub async fn replace_order(connection: &mut PgConnection, order: &Order) -> Result<(), sqlx::Error> {
    // An insert `on conflict` would fire the trigger for a new row even if the row exists.
    sqlx::query_file!(
        "src/db/rebuild/replace.sql",
        order.id,
        order.user_id,
        order.status.as_str(),
        order.currency,
        order.total_minor,
        order.placed_at,
        order.updated_at,
        order.version,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("delete from order_items where order_id = $1", order.id).execute(&mut *connection).await?;
    let Lines { skus, quantities, unit_prices } = Lines::new(&order.items);
    sqlx::query!(
        r#"
        insert into order_items (order_id, line_no, sku, quantity, unit_price_minor)
        select $1, i.line_no, i.sku, i.quantity, i.unit_price_minor
        from unnest($2::text[], $3::integer[], $4::bigint[])
            with ordinality as i (sku, quantity, unit_price_minor, line_no)
        "#,
        order.id,
        &skus as _,
        &quantities,
        &unit_prices,
    )
    .execute(connection)
    .await?;
    Ok(())
}
