//! Reading orders.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chassis::http::conditional::none_match_names;
use chassis::http::page::{Page, PageRequest};
use chassis::http::path::Id;
use chassis::http::problem::ProblemBody;
use chassis::http::query::{Query, reject};
use chrono::DateTime;
use shared_db::run;
use uuid::Uuid;

use super::history::order_as_of;
use super::wire::{self, OpenOrders, Order};
use crate::App;
use crate::customers::Customer;
use crate::db::orders::{self, Filter};
use crate::domain::{self, Status};
use crate::error::Error;

/// The name of the list of orders, for cursors.
const ORDERS: &str = "orders";

/// Read an order, as it is or as it was.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    params(
        ("id" = Uuid, Path),
        ("as_of" = Option<DateTime<Utc>>, Query, description = "the order as it was then (RFC 3339); its customer is today's"),
        ("if-none-match" = Option<String>, Header, description = "the ETag the client has"),
    ),
    responses(
        (status = 200, body = Order, headers(("etag" = String))),
        (status = 304, description = "the client has it already"),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "a bad parameter"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn get_order(State(app): State<App>, Id(id): Id, mut query: Query, headers: HeaderMap) -> Result<Response, Error> {
    let as_of = query.optional("as_of", |text| {
        let moment = DateTime::parse_from_rfc3339(text);
        moment
            .map(|moment| moment.to_utc())
            .map_err(|_| "must be a time such as 2026-01-31T12:00:00Z (a `+` is written %2B)".into())
    })?;
    query.finish()?;
    if let Some(moment) = as_of {
        return Ok(order_as_of(&app, id, moment).await?.into_response());
    }
    let found = run!(app.database, connection => orders::find_order(connection, id, app.customers.in_view())).await?;
    let (order, customer) = found.ok_or(Error::NotFound)?;
    let customer = app.customers.of(order.user_id, customer).await;
    let order = Order::new(order, customer);
    match order.tag() {
        Some(tag) if none_match_names(&headers, &tag) => {
            Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response())
        }
        _ => Ok(order.into_response()),
    }
}

/// List orders, newest first, each with its customer and items.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    params(
        ("user_id" = Option<Uuid>, Query, description = "only this user's"),
        ("status" = Option<wire::Status>, Query, description = "only those that stand here"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = Page<Order>, headers(("link" = String))),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "a bad parameter"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn list_orders(State(app): State<App>, uri: Uri, mut query: Query) -> Result<Response, Error> {
    let request = PageRequest::<Uuid>::read(ORDERS, &mut query)?;
    let filter = Filter { user_id: query.id("user_id")?, status: query.optional("status", status)? };
    query.finish()?;
    let (rows, in_view) = (request.rows(), app.customers.in_view());
    let found =
        run!(app.database, connection => orders::list_orders(connection, filter, request.after, rows, in_view)).await?;
    let place = |(order, _): &(domain::Order, Option<Customer>)| order.id;
    let page = request.page(ORDERS, found, place);
    let (orders, joined): (Vec<_>, Vec<_>) = page.items.into_iter().unzip();
    let customers = orders.iter().map(|order: &domain::Order| order.user_id).zip(joined).collect();
    let customers = app.customers.of_all(customers).await;
    let items = orders.into_iter().zip(customers).map(|(order, customer)| Order::new(order, customer)).collect();
    Ok(Page { items, next_cursor: page.next_cursor }.respond(&uri))
}

fn status(text: &str) -> Result<Status, std::borrow::Cow<'static, str>> {
    Status::parse(text).ok_or_else(|| "must be placed, paid, shipped, delivered or cancelled".into())
}

/// Count a user's open orders: those placed, paid or shipped.
#[utoipa::path(
    get,
    path = "/open-orders",
    tag = "orders",
    params(("user_id" = Uuid, Query)),
    responses(
        (status = 200, body = OpenOrders, description = "0 for a user without orders, known or not"),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "a bad parameter"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn get_open_orders(State(app): State<App>, mut query: Query) -> Result<axum::Json<OpenOrders>, Error> {
    let user_id = query.id("user_id")?.ok_or_else(|| reject("user_id", "is missing"))?;
    query.finish()?;
    let open_count = run!(app.database, connection => orders::count_open_orders(connection, user_id)).await?;
    Ok(axum::Json(OpenOrders { user_id, open_count }))
}
