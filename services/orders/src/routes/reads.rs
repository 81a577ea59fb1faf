//! Reading orders.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chassis::http::conditional::{IfNoneMatch, none_match_names};
use chassis::http::document::{Reading, Unchanged, WithQuery};
use chassis::http::page::{Page, PageRequest, Paging};
use chassis::http::path::Id;
use chassis::http::query::{FromText, Query, reject};
use shared_db::run;
use uuid::Uuid;

use super::history::order_as_of;
use super::wire::{OpenOrders, Order, OrderNow};
use crate::App;
use crate::db::orders::{Filter, count_open_orders};
use crate::db::rows::Found;
use crate::domain::Status;
use crate::error::Error;

/// The name of the list of orders, for cursors.
const ORDERS: &str = "orders";

/// Read an order, as it is or as it was.
#[utoipa::path(
    get, path = "/orders/{id}", tag = "orders",
    params(
        Id,
        ("as_of" = Option<DateTime<Utc>>, Query, description = "show the order as it was then, with today's customer"),
        IfNoneMatch,
    ),
    responses(OrderNow, Unchanged, WithQuery, Reading)
)]
pub async fn get_order(State(app): State<App>, Id(id): Id, mut query: Query, headers: HeaderMap) -> Result<Response, Error> {
    let as_of = query.read("as_of")?;
    query.finish()?;
    if let Some(moment) = as_of {
        return Ok(order_as_of(&app, id, moment).await?.into_response());
    }
    let Found { order, customer } = app.customers.find_order(&app.database, id).await?.ok_or(Error::NotFound)?;
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
    get, path = "/orders", tag = "orders",
    params(
        ("user_id" = Option<Uuid>, Query, description = "only orders of this user"),
        ("status" = Option<Status>, Query, description = "only orders in this state"),
        Paging,
    ),
    responses((status = 200, body = Page<Order>, description = "A page of orders.", headers(("link" = String))), WithQuery)
)]
pub async fn list_orders(State(app): State<App>, uri: Uri, mut query: Query) -> Result<Response, Error> {
    let request = PageRequest::<Uuid>::read(ORDERS, &mut query)?;
    let filter = Filter { user_id: query.read("user_id")?, status: query.read("status")? };
    query.finish()?;
    let found = app.customers.list_orders(&app.database, filter, request.after, request.rows()).await?;
    let Page { mut items, next_cursor } = request.page(ORDERS, found, |found: &Found| found.order.id);
    let joined = items.iter_mut().map(|found| (found.order.user_id, found.customer.take())).collect();
    let customers = app.customers.of_all(joined).await;
    let items = items.into_iter().zip(customers).map(|(found, customer)| Order::new(found.order, customer)).collect();
    Ok(Page { items, next_cursor }.respond(&uri))
}

/// Count a user's open orders: those placed, paid or shipped.
#[utoipa::path(
    get, path = "/open-orders", tag = "orders", params(("user_id" = Uuid, Query, description = "the user")),
    responses((status = 200, body = OpenOrders, description = "0 for a user without orders, known or not."), WithQuery)
)]
pub async fn get_open_orders(State(app): State<App>, mut query: Query) -> Result<axum::Json<OpenOrders>, Error> {
    let user_id = query.read("user_id")?.ok_or_else(|| reject("user_id", "is missing"))?;
    query.finish()?;
    let open_count = run!(app.database, connection => count_open_orders(connection, user_id)).await?;
    Ok(axum::Json(OpenOrders { user_id, open_count }))
}

impl FromText for Status {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        Self::parse(text).ok_or("must be placed, paid, shipped, delivered or cancelled".into())
    }
}
