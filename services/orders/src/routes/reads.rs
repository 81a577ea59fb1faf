//! Reading orders.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use chassis::auth::Caller;
use chassis::events::{Gone, ReadAfter};
use chassis::http::conditional::Preconditions;
use chassis::http::document::{Reading, Unchanged, WithQuery};
use chassis::http::page::{Page, PageRequest, Paging};
use chassis::http::path::Id;
use chassis::http::problem::Problem;
use chassis::http::query::{FromText, Query, reject};
use shared_db::run;
use uuid::Uuid;

use super::history::order_as_of;
use super::wire::{OpenOrders, Order, OrderNow};
use crate::App;
use crate::db::lists::Filter;
use crate::db::orders::count_open_orders;
use crate::db::rows::Found;
use crate::domain::{Lookup, Status};
use crate::error::Error;

/// The name of the list of orders, for cursors.
const ORDERS: &str = "orders";

/// Read an order.
///
/// As it is; or with `as_of` as it was then. The entity tag is the version of the order and that of its customer.
#[utoipa::path(
    get, path = "/orders/{id}", tag = "orders",
    params(
        Id,
        ("as_of" = Option<DateTime<Utc>>, Query, description = "show the order as it was then, with today's customer"),
        Preconditions,
    ),
    responses(OrderNow, Unchanged, WithQuery, Reading, Gone)
)]
pub async fn get_order(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    mut query: Query,
    preconditions: Preconditions,
    seen: ReadAfter,
) -> Result<Response, Error> {
    let as_of = query.read("as_of")?;
    query.finish()?;
    if let Some(moment) = as_of {
        if caller.owner().is_some() {
            find_own(&app, &caller, id, seen).await?;
        }
        // The preconditions are about the order as it is.
        return Ok(order_as_of(&app, id, moment, seen).await?.into_response());
    }
    let Found { order, customer } = find_own(&app, &caller, id, seen).await?;
    let customer = app.customers.of(order.user_id, customer).await;
    let order = Order::new(order, customer);
    Ok(preconditions.answer(order.tag(), || order.into_response())?)
}

/// The order with this id, if the caller may see it.
async fn find_own(app: &App, caller: &Caller, id: Uuid, seen: ReadAfter) -> Result<Found, Error> {
    let found = app.customers.find_order(&app.database, id, seen).await?;
    found.filter(|found| caller.may_touch(found.order.user_id)).ok_or(Error::NotFound)
}

/// List orders.
///
/// Newest first, each with its customer and items.
#[utoipa::path(
    get, path = "/orders", tag = "orders",
    params(
        ("user_id" = Option<Uuid>, Query, description = "only orders of this user"),
        ("status" = Option<Status>, Query, description = "only orders in this state"),
        Paging,
    ),
    responses((status = 200, body = Page<Order>, description = "A page of orders.", headers(("link" = String))), WithQuery)
)]
pub async fn list_orders(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    mut query: Query,
    seen: ReadAfter,
) -> Result<Response, Error> {
    let request = PageRequest::<Uuid>::read(ORDERS, &mut query)?;
    let mut filter = Filter { user_id: query.read("user_id")?, status: query.read("status")? };
    query.finish()?;
    let found = if filter.user_id.is_none_or(|user_id| caller.may_touch(user_id)) {
        filter.user_id = filter.user_id.or(caller.owner());
        app.customers.list_orders(&app.database, filter, request.after, request.rows(), seen).await?
    } else {
        Vec::new().into()
    };
    let mut page = request.page(ORDERS, found, |found: &Found| found.order.id);
    let joined = page.items.iter_mut().map(|found| (found.order.user_id, found.customer.take())).collect();
    let customers = app.customers.of_all(joined).await;
    let mut customers = customers.into_iter();
    let complete = |found: Found| Order::new(found.order, customers.next().unwrap_or(Lookup::Unavailable));
    Ok(page.map(complete).respond(&uri))
}

/// Count a user's open orders.
///
/// Those that are placed, paid or shipped.
#[utoipa::path(
    get, path = "/open-orders", tag = "orders", params(("user_id" = Uuid, Query, description = "the user")),
    responses((status = 200, body = OpenOrders, description = "0 for a user without orders, known or not."), WithQuery)
)]
pub async fn get_open_orders(
    State(app): State<App>,
    caller: Caller,
    mut query: Query,
) -> Result<axum::Json<OpenOrders>, Error> {
    let user_id = query.read("user_id")?.ok_or_else(|| reject("user_id", "is missing"))?;
    query.finish()?;
    if !caller.may_touch(user_id) {
        return Err(Problem::not_found("there is nothing of this user for you").into());
    }
    let open_count = run!(app.database, connection => count_open_orders(connection, user_id)).await?;
    Ok(axum::Json(OpenOrders { user_id, open_count }))
}

impl FromText for Status {
    fn from_text(text: &str) -> Result<Self, Cow<'static, str>> {
        Self::parse(text).ok_or("must be placed, paid, shipped, delivered or cancelled".into())
    }
}
