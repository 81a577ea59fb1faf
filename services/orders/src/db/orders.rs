//! The tables `orders` and `order_items`. A change and its event are one statement: one round trip, and both or none.

use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{OrderRow, customer};
use crate::customers::Customer;
use crate::domain::{Order, Status};
use crate::events::Announcement;

/// Selects orders with lines and customer. The lines are aggregated as they come from the ordered subquery, which spares
/// each aggregate a sort of its own. `$1` says whether the customer is looked for in the view at all.
macro_rules! select_orders {
    ($in_view:expr, $rest:literal, $($parameter:expr),* $(,)?) => {
        sqlx::query_as!(
            OrderRow,
            r#"
            select
                o.id, o.user_id, o.status, o.currency, o.total_minor, o.placed_at, o.updated_at, o.version,
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
            "# + $rest,
            $in_view,
            $($parameter),*
        )
    };
}

/// The order with this id, and its customer.
pub async fn find_order(
    connection: &mut PgConnection,
    id: Uuid,
    in_view: bool,
) -> Result<Option<(Order, Option<Customer>)>, sqlx::Error> {
    let row = select_orders!(in_view, "where o.id = $2", id).fetch_optional(connection).await?;
    row.map(TryFrom::try_from).transpose()
}

/// An order placed with an idempotency key, and the hash of the request behind it.
pub struct Replay {
    /// The order as it is now.
    pub order: Order,
    /// Its customer.
    pub customer: Option<Customer>,
    /// Of the request that placed it.
    pub hash: Vec<u8>,
}

/// The order placed with this idempotency key.
pub async fn find_replay(connection: &mut PgConnection, key: &str, in_view: bool) -> Result<Option<Replay>, sqlx::Error> {
    let placed = sqlx::query!(
        r#"
        select id, idempotency_hash as "hash!"
        from orders
        where idempotency_key = $1
        "#,
        key,
    );
    let Some(placed) = placed.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let found = find_order(connection, placed.id, in_view).await?;
    Ok(found.map(|(order, customer)| Replay { order, customer, hash: placed.hash }))
}

/// Which orders a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only this user's.
    pub user_id: Option<Uuid>,
    /// Only those that stand here.
    pub status: Option<Status>,
}

/// `limit` orders at most, newest first, from the first that is older than `before`.
pub async fn list_orders(
    connection: &mut PgConnection,
    filter: Filter,
    before: Option<Uuid>,
    limit: i64,
    in_view: bool,
) -> Result<Vec<(Order, Option<Customer>)>, sqlx::Error> {
    // Above every UUIDv7, so that the first page needs no plan of its own.
    let before = before.unwrap_or(Uuid::max());
    let status = filter.status.map(Status::as_str);
    // One statement for each set of filters: with `$1 is null or …` the prepared plan could use no index.
    let rows = match (filter.user_id, status) {
        (None, None) => {
            select_orders!(in_view, "where o.id < $2 order by o.id desc limit $3", before, limit)
                .fetch_all(connection)
                .await?
        }
        (Some(user_id), None) => {
            select_orders!(in_view, "where o.user_id = $4 and o.id < $2 order by o.id desc limit $3", before, limit, user_id)
                .fetch_all(connection)
                .await?
        }
        (None, Some(status)) => {
            select_orders!(in_view, "where o.status = $4 and o.id < $2 order by o.id desc limit $3", before, limit, status)
                .fetch_all(connection)
                .await?
        }
        (Some(user_id), Some(status)) => {
            select_orders!(
                in_view,
                "where o.user_id = $4 and o.status = $5 and o.id < $2 order by o.id desc limit $3",
                before,
                limit,
                user_id,
                status,
            )
            .fetch_all(connection)
            .await?
        }
    };
    rows.into_iter().map(TryFrom::try_from).collect()
}

/// The user's orders that are placed, paid or shipped.
pub async fn count_open_orders(connection: &mut PgConnection, user_id: Uuid) -> Result<i64, sqlx::Error> {
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

/// The key a client chose for its request, and the request's hash.
pub struct IdempotencyKey {
    /// Chosen by the client.
    pub key: String,
    /// SHA-256.
    pub hash: Vec<u8>,
}

/// Stores a new order, its lines and its event, and finds its customer; `None` if the idempotency key has been used.
pub async fn insert_order(
    connection: &mut PgConnection,
    order: &Order,
    announcement: &Announcement,
    idempotency: Option<&IdempotencyKey>,
    in_view: bool,
) -> Result<Option<Option<Customer>>, sqlx::Error> {
    let skus: Vec<&str> = order.items.iter().map(|item| item.sku.as_str()).collect();
    let quantities: Vec<i32> = order.items.iter().map(|item| item.quantity).collect();
    let unit_prices: Vec<i64> = order.items.iter().map(|item| item.unit_price_minor).collect();
    // A used key is looked for first, since the rules for a new order do not concern a repeat. `on conflict` is for the
    // request with the same key that has not committed yet: it is waited for.
    let row = sqlx::query!(
        r#"
        with placed as (
            insert into orders (
                id, user_id, status, currency, total_minor, placed_at, updated_at, version,
                idempotency_key, idempotency_hash
            )
            select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
            where not exists (select from orders where idempotency_key = $9)
            on conflict (idempotency_key) where idempotency_key is not null do nothing
            returning id, user_id, version, updated_at
        ),
        items as (
            insert into order_items (order_id, line_no, sku, quantity, unit_price_minor)
            select p.id, i.line_no, i.sku, i.quantity, i.unit_price_minor
            from placed p
            cross join unnest($11::text[], $12::integer[], $13::bigint[])
                with ordinality as i (sku, quantity, unit_price_minor, line_no)
        ),
        event as (
            insert into order_events (order_id, version, type, data, occurred_at)
            select id, version, $14, $15, updated_at
            from placed
        )
        select c.name as "name?", c.status as "status?", c.version as "version?"
        from placed p
        left join customers c on c.id = p.user_id and $16::boolean
        "#,
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
        &announcement.data as _,
        in_view,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| customer(order.user_id, row.name, row.status, row.version)))
}

/// Stores the order over the version before it, and its event; `false` if another version is there by now.
///
/// That the version before was read in an earlier statement is what keeps the feed in order: this statement's
/// transaction is younger than the one that made that version.
pub async fn update_order(
    connection: &mut PgConnection,
    order: &Order,
    announcement: &Announcement,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        r#"
        with changed as (
            update orders
            set status = $2, updated_at = $3, version = $4
            where id = $1
              and version = $4::bigint - 1
            returning id, version, updated_at
        )
        insert into order_events (order_id, version, type, data, occurred_at)
        select id, version, $5, $6, updated_at
        from changed
        "#,
        order.id,
        order.status.as_str(),
        order.updated_at,
        order.version,
        announcement.r#type,
        &announcement.data as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
