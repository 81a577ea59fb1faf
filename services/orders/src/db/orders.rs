//! The tables `orders` and `order_items`. A change and its event are one statement, so they take one round trip, and
//! Postgres commits both or neither.

use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{Found, Lines, OrderRow, customer};
use crate::domain::{Customer, Order, Status};
use crate::events::Announcement;

/// Selects orders with lines and customer. The subquery orders the lines once, so no aggregate has to sort. `$1` says
/// whether the view `customers` is joined.
macro_rules! select_orders {
    ($in_view:expr, $($rest:literal)+, $($parameter:expr),+) => {
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
            "# $(+ $rest)+,
            $in_view,
            $($parameter),+
        )
    };
}

/// The order with this id.
pub async fn find_order(connection: &mut PgConnection, id: Uuid, in_view: bool) -> Result<Option<Found>, sqlx::Error> {
    let row = select_orders!(in_view, "where o.id = $2", id).fetch_optional(connection).await?;
    row.map(TryFrom::try_from).transpose()
}

/// The orders with these ids, ordered by id, without their customers.
pub async fn orders_by_id(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Order>, sqlx::Error> {
    let rows = select_orders!(false, "where o.id = any($2) order by o.id", ids).fetch_all(connection).await?;
    rows.into_iter().map(|row| Found::try_from(row).map(|found| found.order)).collect()
}

/// The order that was placed with this idempotency key, as it is now, and the hash of the request that placed it.
pub async fn find_replay(
    connection: &mut PgConnection,
    key: &str,
    in_view: bool,
) -> Result<Option<(Found, Vec<u8>)>, sqlx::Error> {
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
    Ok(found.map(|found| (found, placed.hash)))
}

/// The filters of a list of orders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only orders of this user.
    pub user_id: Option<Uuid>,
    /// Only orders in this state.
    pub status: Option<Status>,
}

/// The newest `limit` orders that are older than `before`. Each filter has a statement of its own: with `$1 is null or …` a
/// prepared plan uses no index.
pub async fn list_orders(
    connection: &mut PgConnection,
    filter: Filter,
    before: Option<Uuid>,
    limit: i64,
    in_view: bool,
) -> Result<Vec<Found>, sqlx::Error> {
    // This id is above every UUIDv7, so the first page needs no statement of its own.
    let before = before.unwrap_or(Uuid::max());
    let status = filter.status.map(Status::as_str);
    macro_rules! newest {
        ($filter:literal $(, $parameter:expr)*) => {
            select_orders!(in_view, $filter "o.id < $2 order by o.id desc limit $3", before, limit $(, $parameter)*)
                .fetch_all(connection)
                .await?
        };
    }
    let rows = match (filter.user_id, status) {
        (None, None) => newest!("where "),
        (Some(user_id), None) => newest!("where o.user_id = $4 and ", user_id),
        (None, Some(status)) => newest!("where o.status = $4 and ", status),
        (Some(user_id), Some(status)) => newest!("where o.user_id = $4 and o.status = $5 and ", user_id, status),
    };
    rows.into_iter().map(TryFrom::try_from).collect()
}

/// How many orders of the user are placed, paid or shipped.
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
    /// The order is stored. Its customer, if the statement or the port has found one.
    New(Option<Customer>),
    /// The idempotency key has been used before.
    KeyUsed,
}

/// Inserts a new order, its lines and its event, and finds its customer.
pub async fn insert_order(
    connection: &mut PgConnection,
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
        &announcement.data as _,
        in_view,
    )
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) => Placed::New(customer(order.user_id, row.name, row.status, row.version)),
        None => Placed::KeyUsed,
    })
}

/// Writes the order over the previous version, and its event. `false` if another version is stored by now.
///
/// An earlier statement must have read the previous version. So this transaction is younger than the one that wrote that
/// version, and the feed shows their events in the order of the versions.
pub async fn update_order(
    connection: &mut PgConnection,
    order: &Order,
    announcement: &Announcement,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query_file!(
        "src/db/orders/update.sql",
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
