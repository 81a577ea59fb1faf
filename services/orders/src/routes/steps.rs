//! The steps of an order after it was placed.

use axum::extract::State;
use axum::http::HeaderMap;
use chassis::http::body::OptionalJson;
use chassis::http::conditional::IfMatch;
use chassis::http::path::Id;
use chassis::http::problem::ProblemBody;
use uuid::Uuid;

use super::wire::{CancelOrder, Order};
use crate::App;
use crate::domain::{self, Event};
use crate::error::Error;
use crate::step::take_step;

/// The order was paid.
#[utoipa::path(
    post,
    path = "/orders/{id}/pay",
    tag = "orders",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    responses(
        (status = 200, body = Order, headers(("etag" = String))),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid-transition"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn pay(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Paid).await
}

/// The order was shipped.
#[utoipa::path(
    post,
    path = "/orders/{id}/ship",
    tag = "orders",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    responses(
        (status = 200, body = Order, headers(("etag" = String))),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid-transition"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn ship(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Shipped).await
}

/// The order was delivered.
#[utoipa::path(
    post,
    path = "/orders/{id}/deliver",
    tag = "orders",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    responses(
        (status = 200, body = Order, headers(("etag" = String))),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid-transition"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn deliver(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Delivered).await
}

/// Cancel an order that has not been shipped.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    tag = "orders",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    request_body(content = Option<CancelOrder>, description = "may be left out"),
    responses(
        (status = 200, body = Order, headers(("etag" = String))),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "malformed JSON"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid-transition"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 413, body = ProblemBody<'_>, content_type = "application/problem+json", description = "over 64 KiB"),
        (status = 415, body = ProblemBody<'_>, content_type = "application/problem+json", description = "not JSON"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid fields"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn cancel(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    OptionalJson(CancelOrder { reason }): OptionalJson<CancelOrder>,
) -> Result<Order, Error> {
    step(&app, id, &headers, Event::Cancelled { reason }).await
}

async fn step(app: &App, id: Uuid, headers: &HeaderMap, event: Event) -> Result<Order, Error> {
    let if_match = IfMatch::read(headers);
    let allowed = |order: &domain::Order| match if_match.allows_first_part(order.version) {
        true => Ok(()),
        false => Err(Error::PreconditionFailed),
    };
    let (order, customer) = take_step(app, id, &event, allowed).await?;
    let customer = app.customers.of(order.user_id, customer).await;
    Ok(Order::new(order, customer))
}
