//! What `orders rebuild` reads and repairs.

use chassis::events::LoggedEvent;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::status;
use crate::domain::{Item, Order};

/// An estimate of how many orders there are; counting them takes as long as a good part of the work itself.
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
    sqlx::query_scalar!(
        r#"
        select id as "id!"
        from (
            (select id from orders where id > $1 order by id limit $2)
            union
            (select distinct order_id from order_events where order_id > $1 order by order_id limit $2)
        ) ids
        order by id
        limit $2
        "#,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// An order's rows.
pub struct StoredOrder {
    /// What they say.
    pub order: Order,
    /// Whether its lines are numbered 1, 2, 3 …
    pub well_numbered: bool,
}

/// The rows of these orders, by id.
pub async fn orders_by_id(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<StoredOrder>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select
            o.id, o.user_id, o.status, o.currency, o.total_minor, o.placed_at, o.updated_at, o.version,
            array_remove(array_agg(i.line_no order by i.line_no), null) as "line_nos!: Vec<i32>",
            array_remove(array_agg(i.sku order by i.line_no), null) as "skus!: Vec<String>",
            array_remove(array_agg(i.quantity order by i.line_no), null) as "quantities!: Vec<i32>",
            array_remove(array_agg(i.unit_price_minor order by i.line_no), null) as "unit_prices!: Vec<i64>"
        from orders o
        left join order_items i on i.order_id = o.id
        where o.id = any($1)
        group by o.id
        order by o.id
        "#,
        ids,
    );
    let orders = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let items = row.skus.into_iter().zip(row.quantities).zip(row.unit_prices);
        let order = Order {
            id: row.id,
            user_id: row.user_id,
            status: status(&row.status)?,
            currency: row.currency,
            items: items.map(|((sku, quantity), unit_price_minor)| Item { sku, quantity, unit_price_minor }).collect(),
            total_minor: row.total_minor,
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            version: row.version,
        };
        let well_numbered = row.line_nos.into_iter().eq(1..=order.items.len() as i32);
        Ok(StoredOrder { order, well_numbered })
    });
    orders.collect()
}

/// The events of these orders, by id and version.
pub async fn events_by_id(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<LoggedEvent>, sqlx::Error> {
    let events = sqlx::query_as!(
        LoggedEvent,
        r#"
        select order_id as subject, version, type, data as "data: Box<RawValue>", occurred_at
        from order_events
        where order_id = any($1)
        order by order_id, version
        "#,
        ids,
    );
    events.fetch_all(connection).await
}

/// Locks the order's row, if it has one, against requests that would change it meanwhile.
pub async fn lock_order(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("select id from orders where id = $1 for update", id).fetch_optional(connection).await?;
    Ok(())
}

/// Makes the order's rows what its events say. Run it in a transaction.
pub async fn replace_order(connection: &mut PgConnection, order: &Order) -> Result<(), sqlx::Error> {
    let updated = sqlx::query!(
        r#"
        update orders
        set user_id = $2, status = $3, currency = $4, total_minor = $5, placed_at = $6, updated_at = $7, version = $8
        where id = $1
        "#,
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
    // No `on conflict`: the rules for a new row would be asked of one that is there.
    if updated.rows_affected() == 0 {
        insert_row(connection, order).await?;
    }
    sqlx::query!("delete from order_items where order_id = $1", order.id).execute(&mut *connection).await?;
    let skus: Vec<&str> = order.items.iter().map(|item| item.sku.as_str()).collect();
    let quantities: Vec<i32> = order.items.iter().map(|item| item.quantity).collect();
    let unit_prices: Vec<i64> = order.items.iter().map(|item| item.unit_price_minor).collect();
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

async fn insert_row(connection: &mut PgConnection, order: &Order) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        "#,
        order.id,
        order.user_id,
        order.status.as_str(),
        order.currency,
        order.total_minor,
        order.placed_at,
        order.updated_at,
        order.version,
    )
    .execute(connection)
    .await?;
    Ok(())
}
