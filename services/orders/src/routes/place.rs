//! Placing an order.

use axum::extract::State;
use axum::response::Response;
use chassis::auth::Caller;
use chassis::http::body::Json;
use chassis::http::document::WithBody;
use chrono::Utc;
use uuid::Uuid;

use super::idempotency::{KeyHeader, REPLAYED};
use super::wire::{self, Order, PlaceOrder};
use crate::App;
use crate::db::orders::{IdempotencyKey, Placed, Replay};
use crate::domain::{self, NewOrder};
use crate::error::Error;
use crate::events::announce_placed;

/// Place an order.
///
/// With an Idempotency-Key it can be repeated safely: all repeats together place one order.
#[utoipa::path(
    post, path = "/orders", tag = "orders", params(KeyHeader),
    request_body(content = PlaceOrder, example = json!({
        "user_id": "0198c0de-0000-7000-8000-000000000000",
        "currency": "EUR",
        "items": [{ "sku": "tea", "quantity": 2, "unit_price_minor": 350 }],
    })),
    responses(WithBody, wire::Placed)
)]
pub async fn post_order(
    State(app): State<App>,
    caller: Caller,
    key: KeyHeader,
    Json(new): Json<PlaceOrder>,
) -> Result<Response, Error> {
    let new = NewOrder::from(new);
    if !caller.may_touch(new.user_id) {
        // As for a user who does not exist.
        return Err(Error::UnknownUser);
    }
    let key = key.read(&caller, &new)?;
    let order = domain::Order::place(Uuid::now_v7(), new, Utc::now());
    let announcement = announce_placed(&order).by(&caller);
    let refusal = match app.customers.place(&app.database, &order, &announcement, key.as_ref()).await {
        Ok(Placed::New(position, customer)) => {
            app.wakeups.wake();
            return Ok(Order::new(order, customer.into()).placed(position));
        }
        Ok(Placed::KeyUsed) => Error::Contended,
        // A faster request with the same key may have placed the order before the rule refused this one.
        Err(error @ (Error::UnknownUser | Error::UserDeactivated | Error::CustomersUnavailable(_))) => error,
        Err(error) => return Err(error),
    };
    match key {
        Some(key) => replay(&app, &key).await?.ok_or(refusal),
        None => Err(refusal),
    }
}

/// The response to a request whose key has been used. `None` if it has not.
async fn replay(app: &App, key: &IdempotencyKey) -> Result<Option<Response>, Error> {
    let replayed = app.customers.find_replay(&app.database, &key.key).await?;
    let Some(Replay { found, hash, seen }) = replayed else { return Ok(None) };
    if hash != key.hash {
        return Err(Error::IdempotencyKeyReused);
    }
    let customer = app.customers.of(found.order.user_id, found.customer).await;
    let mut response = Order::new(found.order, customer).placed(seen);
    response.headers_mut().extend([REPLAYED]);
    Ok(Some(response))
}
