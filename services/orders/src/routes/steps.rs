//! The steps of an order after it was placed.

use axum::extract::State;
use chassis::auth::Caller;
use chassis::events::ReadAfter;
use chassis::http::body::OptionalJson;
use chassis::http::conditional::Preconditions;
use chassis::http::document::{Changing, WithBody};
use chassis::http::path::Id;
use uuid::Uuid;

use super::wire::{CancelOrder, Order, StepTaken};
use crate::App;
use crate::db::rows::Found;
use crate::domain::{self, Event};
use crate::error::Error;
use crate::step::take_step;

/// Note that an order was paid.
///
/// From `placed` to `paid`.
#[utoipa::path(post, path = "/orders/{id}/pay", tag = "orders", params(Id, Preconditions), responses(StepTaken, Changing))]
pub async fn pay(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<(ReadAfter, Order), Error> {
    step(&app, &caller, id, &preconditions, Event::Paid).await
}

/// Note that an order was shipped.
///
/// From `paid` to `shipped`.
#[utoipa::path(post, path = "/orders/{id}/ship", tag = "orders", params(Id, Preconditions), responses(StepTaken, Changing))]
pub async fn ship(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<(ReadAfter, Order), Error> {
    step(&app, &caller, id, &preconditions, Event::Shipped).await
}

/// Note that an order was delivered.
///
/// From `shipped` to `delivered`.
#[utoipa::path(
    post,
    path = "/orders/{id}/deliver",
    tag = "orders",
    params(Id, Preconditions),
    responses(StepTaken, Changing)
)]
pub async fn deliver(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<(ReadAfter, Order), Error> {
    step(&app, &caller, id, &preconditions, Event::Delivered).await
}

/// Cancel an order.
///
/// From `placed` or `paid` to `cancelled`: one that was shipped arrives.
#[utoipa::path(
    post, path = "/orders/{id}/cancel", tag = "orders", params(Id, Preconditions),
    request_body(
        content = Option<CancelOrder>, description = "may be left out",
        example = json!({ "reason": "The customer has changed their mind." })
    ),
    responses(StepTaken, Changing, WithBody)
)]
pub async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
    OptionalJson(CancelOrder { reason }): OptionalJson<CancelOrder>,
) -> Result<(ReadAfter, Order), Error> {
    step(&app, &caller, id, &preconditions, Event::Cancelled { reason: reason.map(|reason| reason.0) }).await
}

async fn step(
    app: &App,
    caller: &Caller,
    id: Uuid,
    preconditions: &Preconditions,
    event: Event,
) -> Result<(ReadAfter, Order), Error> {
    let allowed = |order: &domain::Order| match caller.may_touch(order.user_id) {
        true => Ok(preconditions.allow_first_part(order.version)?),
        false => Err(Error::NotFound),
    };
    let (Found { order, customer }, position) = take_step(app, caller, id, &event, allowed).await?;
    let customer = app.customers.of(order.user_id, customer).await;
    Ok((position.into(), Order::new(order, customer)))
}
