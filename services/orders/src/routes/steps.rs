//! The steps of an order after it was placed.

use axum::extract::State;
use axum::http::HeaderMap;
use chassis::http::body::OptionalJson;
use chassis::http::conditional::IfMatch;
use chassis::http::document::{Changing, WithBody};
use chassis::http::path::Id;
use uuid::Uuid;

use super::wire::{CancelOrder, Order, StepTaken};
use crate::App;
use crate::db::rows::Found;
use crate::domain::{self, Event};
use crate::error::Error;
use crate::step::take_step;

/// The order was paid.
#[utoipa::path(post, path = "/orders/{id}/pay", tag = "orders", params(Id, IfMatch), responses(StepTaken, Changing))]
pub async fn pay(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Paid).await
}

/// The order was shipped.
#[utoipa::path(post, path = "/orders/{id}/ship", tag = "orders", params(Id, IfMatch), responses(StepTaken, Changing))]
pub async fn ship(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Shipped).await
}

/// The order was delivered.
#[utoipa::path(post, path = "/orders/{id}/deliver", tag = "orders", params(Id, IfMatch), responses(StepTaken, Changing))]
pub async fn deliver(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Delivered).await
}

/// Cancel an order that has not been shipped.
#[utoipa::path(
    post, path = "/orders/{id}/cancel", tag = "orders", params(Id, IfMatch),
    request_body(content = Option<CancelOrder>, description = "may be left out"),
    responses(StepTaken, Changing, WithBody)
)]
pub async fn cancel(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    OptionalJson(CancelOrder { reason }): OptionalJson<CancelOrder>,
) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Cancelled { reason: reason.map(|reason| reason.0) }).await
}

async fn step(app: &App, id: Uuid, headers: &HeaderMap, event: Event) -> Result<Order, Error> {
    let if_match = IfMatch::read(headers);
    let allowed = |order: &domain::Order| {
        if if_match.allows_first_part(order.version) { Ok(()) } else { Err(Error::PreconditionFailed) }
    };
    let Found { order, customer } = take_step(app, id, &event, allowed).await?;
    let customer = app.customers.of(order.user_id, customer).await;
    Ok(Order::new(order, customer))
}
