//! Lists of orders, a page at a time.

use chassis::http::page::{PAGE_BYTES, Rows};
use shared_db::Connection;
use uuid::Uuid;

use super::orders::select_orders;
use super::rows::{Found, ListedRow, OrderRow};
use crate::domain::{MAX_ITEMS, Status};

/// The most bytes of an order as JSON. The lines are 70 bytes each without their SKU, which has 64 characters. The name of
/// the customer has 200, and the rest of the order less than 512 bytes.
const MAX_ORDER_BYTES: usize = 512 + (200 * 4 + 2) + MAX_ITEMS * (70 + 64 * 4 + 2);
/// So many orders fit into a page, whatever they are.
const ALWAYS_FITTING: i64 = (PAGE_BYTES / MAX_ORDER_BYTES) as i64;

/// The filters of a list of orders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only orders of this user.
    pub user_id: Option<Uuid>,
    /// Only orders in this state.
    pub status: Option<Status>,
}

/// The newest `limit` orders that are older than `before`, and no more than a page has room for.
pub async fn list_orders(
    connection: &mut Connection,
    filter: Filter,
    before: Option<Uuid>,
    limit: i64,
    in_view: bool,
) -> Result<Rows<Found>, sqlx::Error> {
    // This id is above every UUIDv7, so the first page needs no statement of its own.
    let before = before.unwrap_or(Uuid::max());
    if limit > ALWAYS_FITTING {
        return list_fitting(connection, filter, before, limit, in_view).await;
    }
    // Each filter has a statement of its own: with `$1 is null or …` a prepared plan uses no index.
    macro_rules! newest {
        ($filter:literal $(, $parameter:expr)*) => {
            select_orders!(in_view, $filter "o.id < $2 order by o.id desc limit $3", before, limit $(, $parameter)*)
                .fetch_all(connection)
                .await?
        };
    }
    let rows = match (filter.user_id, filter.status.map(Status::as_str)) {
        (None, None) => newest!("where "),
        (Some(user_id), None) => newest!("where o.user_id = $4 and ", user_id),
        (None, Some(status)) => newest!("where o.status = $4 and ", status),
        (Some(user_id), Some(status)) => newest!("where o.user_id = $4 and o.status = $5 and ", user_id, status),
    };
    Ok(rows.into_iter().map(Found::from).collect::<Vec<Found>>().into())
}

/// The same, where Postgres adds up the sizes of the orders. What a page has no room for does not leave it.
async fn list_fitting(
    connection: &mut Connection,
    filter: Filter,
    before: Uuid,
    limit: i64,
    in_view: bool,
) -> Result<Rows<Found>, sqlx::Error> {
    macro_rules! fitting {
        ($filter:literal $(, $parameter:expr)*) => {
            select_orders!(
                @ ListedRow,
                "with newest as (",
                in_view,
                $filter
                r#"o.id < $2 order by o.id desc limit $3
                ), page as (
                    select *, count(*) over () as found, row_number() over list as number, sum(bytes) over list as sum
                    from newest
                    cross join lateral (
                        select 512 + coalesce(octet_length(to_json("customer_name?")::text), 200 * 4 + 2)
                            + coalesce(sum(70 + octet_length(to_json(sku)::text)), 0) as bytes
                        from unnest("skus!") sku
                    ) size
                    window list as (order by id desc)
                )
                select
                    id as "id!", user_id as "user_id!", "status: Status" as "status!: Status",
                    currency as "currency!", total_minor as "total_minor!", placed_at as "placed_at!",
                    updated_at as "updated_at!", version as "version!", "skus!", "quantities!", "unit_prices!",
                    "customer_name?", "customer_status?", "customer_version?", found > count(*) over () as "is_cut!"
                from page
                where number = 1
                   or sum <= $4::bigint
                order by id desc"#,
                before, limit, PAGE_BYTES as i64 $(, $parameter)*
            )
            .fetch_all(connection)
            .await?
        };
    }
    let rows = match (filter.user_id, filter.status.map(Status::as_str)) {
        (None, None) => fitting!("where "),
        (Some(user_id), None) => fitting!("where o.user_id = $5 and ", user_id),
        (None, Some(status)) => fitting!("where o.status = $5 and ", status),
        (Some(user_id), Some(status)) => fitting!("where o.user_id = $5 and o.status = $6 and ", user_id, status),
    };
    Ok(rows.into_iter().map(|row| (row.is_cut, OrderRow::from(row).into())).collect())
}
