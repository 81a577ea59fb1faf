//! Placing an order.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chassis::http::body::Json;
use chassis::http::problem::ProblemBody;
use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use super::idempotency::{self, REPLAYED};
use super::wire::{Order, PlaceOrder, location};
use crate::App;
use crate::customers::Customer;
use crate::db::customers::{find_customer, store_customers};
use crate::db::orders::{IdempotencyKey, Replay, find_replay, insert_order};
use crate::domain::{self, Event, NewOrder};
use crate::error::Error;
use crate::events::{Announcement, announce};

/// Place an order. With an Idempotency-Key it can be repeated safely: all repeats together place one order.
#[utoipa::path(
    post,
    path = "/orders",
    tag = "orders",
    params(
        ("idempotency-key" = Option<String>, Header, description = "chosen by the client, new for each order", min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    request_body = PlaceOrder,
    responses(
        (status = 201, body = Order, headers(("location" = String), ("etag" = String), ("idempotency-replayed" = String))),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "malformed JSON or key"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "user-deactivated"),
        (status = 413, body = ProblemBody<'_>, content_type = "application/problem+json", description = "over 64 KiB"),
        (status = 415, body = ProblemBody<'_>, content_type = "application/problem+json", description = "not JSON"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid fields, unknown-user, idempotency-key-reused"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn post_order(State(app): State<App>, headers: HeaderMap, Json(new): Json<NewOrder>) -> Result<Response, Error> {
    let key = idempotency::read(&headers, &new)?;
    let order = domain::Order::place(Uuid::now_v7(), new.clone(), Utc::now());
    let refusal = match insert(&app, &order, new, key.as_ref()).await {
        Ok(Some(customer)) => {
            app.wakeups.wake();
            return Ok(created(Order::new(order, customer.into())));
        }
        Ok(None) => Error::Contended,
        // Another request with the same key may have been faster, and the rule that refused this one came after that.
        Err(error @ (Error::UnknownUser | Error::UserDeactivated | Error::CustomersUnavailable(_))) => error,
        Err(error) => return Err(error),
    };
    match key {
        Some(key) => replay(&app, &key).await?.ok_or(refusal),
        None => Err(refusal),
    }
}

async fn insert(
    app: &App,
    order: &domain::Order,
    new: NewOrder,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Option<Customer>>, Error> {
    let admitted = app.customers.admit(order.user_id).await?;
    let announcement = announce(&Event::Placed(new), order);
    let inserted = match try_insert(app, order, &announcement, key).await {
        Err(Error::CustomerNotKnownYet) => {
            introduce(app, order.user_id, admitted.clone()).await?;
            try_insert(app, order, &announcement, key).await?
        }
        done => done?,
    };
    let inserted = match inserted {
        // The rule has seen the user, and the join, which sees what was there when the statement began, has not.
        Some(None) if app.customers.in_view() => {
            Some(run!(app.database, connection => find_customer(connection, order.user_id)).await?)
        }
        inserted => inserted,
    };
    Ok(inserted.map(|joined| app.customers.of_placed(order.user_id, admitted, joined)))
}

async fn try_insert(
    app: &App,
    order: &domain::Order,
    announcement: &Announcement,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Option<Customer>>, Error> {
    let in_view = app.customers.in_view();
    Ok(run!(app.database, connection => insert_order(connection, order, announcement, key, in_view)).await?)
}

/// Tells the replica of a user whose first event is still on its way.
async fn introduce(app: &App, user_id: Uuid, admitted: Option<Customer>) -> Result<(), Error> {
    let customers = [match admitted {
        Some(customer) => customer,
        None => app.customers.ask(user_id).await?,
    }];
    Ok(run!(app.database, connection => store_customers(connection, &customers)).await?)
}

/// The answer for a key that has been used; `None` if it has not.
async fn replay(app: &App, key: &IdempotencyKey) -> Result<Option<Response>, Error> {
    let in_view = app.customers.in_view();
    let Some(placed) = run!(app.database, connection => find_replay(connection, &key.key, in_view)).await? else {
        return Ok(None);
    };
    let Replay { order, customer, hash } = placed;
    if hash != key.hash {
        return Err(Error::IdempotencyKeyReused);
    }
    let customer = app.customers.of(order.user_id, customer).await;
    let mut response = created(Order::new(order, customer));
    response.headers_mut().extend([REPLAYED]);
    Ok(Some(response))
}

fn created(order: Order) -> Response {
    (StatusCode::CREATED, [(header::LOCATION, location(order.id))], order).into_response()
}
