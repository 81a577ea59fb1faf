//! The tables `orders` and `order_items`. A change and its event are one statement, so they take one round trip, and
//! Postgres commits both or neither.

use chassis::events::Position;
use shared_db::{Connection, JsonText};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{Found, Lines, OrderRow, customer};
use crate::domain::{Customer, Order, Status};
use crate::events::Announcement;

/// Selects orders with lines and customer. The subquery orders the lines once, so no aggregate has to sort. `$1` says
/// whether the view `customers` is joined. The statement may have another one around it, which returns other rows.
macro_rules! select_orders {
    (@ $row:ident, $around:literal, $in_view:expr, $($rest:literal)+, $($parameter:expr),+) => {
        sqlx::query_as!(
            $row,
            $around + r#"
            select
                o.id, o.user_id, o.status as "status: Status", o.currency, o.total_minor,
                o.placed_at, o.updated_at, o.version,
                i.skus as "skus!", i.quantities as "quantities!", i.unit_prices as "unit_prices!",
                c.name as "customer_name?", c.status as "customer_status?", c.version as "customer_version?"
            from orders o
            cross join lateral (
                select
                    coalesce(array_agg(l.sku), '{}') as skus,
                    coalesce(array_agg(l.quantity), '{}') as quantities,
                    coalesce(array_agg(l.unit_price_minor), '{}') as unit_prices
                from (
                    select sku, quantity, unit_price_minor
                    from order_items
                    where order_id = o.id
                    order by line_no
                ) l
            ) i
            left join customers c on c.id = o.user_id and $1::boolean
            "# $(+ $rest)+,
            $in_view,
            $($parameter),+
        )
    };
    ($in_view:expr, $($rest:literal)+, $($parameter:expr),+) => {
        select_orders!(@ OrderRow, "", $in_view, $($rest)+, $($parameter),+)
    };
}
pub(super) use select_orders;

/// The order with this id.
pub async fn find_order(connection: &mut Connection, id: Uuid, in_view: bool) -> Result<Option<Found>, sqlx::Error> {
    let row = select_orders!(in_view, "where o.id = $2", id).fetch_optional(connection).await?;
    Ok(row.map(Found::from))
}

/// The orders with these ids, ordered by id, without their customers.
pub async fn orders_by_id(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Order>, sqlx::Error> {
    let rows = select_orders!(false, "where o.id = any($2) order by o.id", ids).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| Found::from(row).order).collect())
}

/// What became of an idempotency key.
pub struct Replay {
    /// The order that was placed with it, as it is now.
    pub found: Found,
    /// The hash of the request that placed it.
    pub hash: Vec<u8>,
    /// A position in the log behind the order's first event.
    pub seen: Position,
}

/// The order that was placed with this idempotency key.
pub async fn find_replay(connection: &mut Connection, key: &str, in_view: bool) -> Result<Option<Replay>, sqlx::Error> {
    let placed = sqlx::query!(
        r#"
        select
            id,
            idempotency_hash as "hash!",
            order_event_epoch() as "epoch!",
            pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1 as "newest!"
        from orders
        where idempotency_key = $1
        "#,
        key,
    );
    let Some(placed) = placed.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let found = find_order(connection, placed.id, in_view).await?;
    let seen = Position { epoch: placed.epoch, xid: placed.newest, position: i64::MAX };
    Ok(found.map(|found| Replay { found, hash: placed.hash, seen }))
}

/// How many orders of the user are placed, paid or shipped.
pub async fn count_open_orders(connection: &mut Connection, user_id: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from orders
        where user_id = $1
          and status in ('placed', 'paid', 'shipped')
        "#,
        user_id,
    )
    .fetch_one(connection)
    .await
}

/// The `Idempotency-Key` of a request.
pub struct IdempotencyKey {
    /// The key, chosen by the client.
    pub key: String,
    /// SHA-256 of the request.
    pub hash: Vec<u8>,
}

/// The outcome of placing an order.
#[derive(Debug)]
pub enum Placed {
    /// The order is stored, and its event is in the log at this position. Its customer, if the statement or the port has
    /// found one.
    New(Position, Option<Customer>),
    /// The idempotency key has been used before.
    KeyUsed,
}

/// Inserts a new order, its lines and its event, and finds its customer.
pub async fn insert_order(
    connection: &mut Connection,
    order: &Order,
    announcement: &Announcement,
    idempotency: Option<&IdempotencyKey>,
    in_view: bool,
) -> Result<Placed, sqlx::Error> {
    let Lines { skus, quantities, unit_prices } = Lines::new(&order.items);
    // `where not exists` finds a used key before the trigger checks the rules for a new order, which do not apply to a
    // repeat. `on conflict` waits for a request with the same key that has not committed yet.
    let row = sqlx::query_file!(
        "src/db/orders/insert.sql",
        order.id,
        order.user_id,
        order.status.as_str(),
        order.currency,
        order.total_minor,
        order.placed_at,
        order.updated_at,
        order.version,
        idempotency.map(|idempotency| idempotency.key.as_str()),
        idempotency.map(|idempotency| idempotency.hash.as_slice()),
        &skus as _,
        &quantities,
        &unit_prices,
        announcement.r#type,
        JsonText(&announcement.data) as _,
        in_view,
        announcement.actor.as_deref(),
        announcement.traceparent.as_deref(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) => {
            let position = Position { epoch: row.epoch, xid: row.xid, position: row.position };
            Placed::New(position, customer(order.user_id, row.name, row.status, row.version))
        }
        None => Placed::KeyUsed,
    })
}

/// Writes the order over the previous version, and its event. Returns the event's position in the log; `None` if another
/// version is stored by now.
///
/// An earlier statement must have read the previous version. So this transaction is younger than the one that wrote that
/// version, and the feed shows their events in the order of the versions.
pub async fn update_order(
    connection: &mut Connection,
    order: &Order,
    announcement: &Announcement,
) -> Result<Option<Position>, sqlx::Error> {
    sqlx::query_file_as!(
        Position,
        "src/db/orders/update.sql",
        order.id,
        order.status.as_str(),
        order.updated_at,
        order.version,
        announcement.r#type,
        JsonText(&announcement.data) as _,
        announcement.actor.as_deref(),
        announcement.traceparent.as_deref(),
    )
    .fetch_optional(connection)
    .await
}
