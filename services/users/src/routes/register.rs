//! Registering a user.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::auth::Caller;
use chassis::events::ReadAfter;
use chassis::http::body::Json;
use chassis::http::document::WithBody;
use chassis::http::json::created;
use chrono::Utc;
use shared_db::change;
use uuid::Uuid;

use super::wire::{RegisterUser, Registered, User};
use crate::App;
use crate::db::users::insert_user;
use crate::domain;
use crate::error::Error;
use crate::events::{Event, announce};

/// Register a user.
///
/// An email address can be taken once, without regard to case.
#[utoipa::path(
    post, path = "/users", tag = "users",
    request_body(content = RegisterUser, example = json!({ "email": "grace@example.org", "name": "Grace Hopper" })),
    responses(Registered, WithBody)
)]
pub async fn post_user(
    State(app): State<App>,
    caller: Caller,
    Json(RegisterUser { email, name }): Json<RegisterUser>,
) -> Result<Response, Error> {
    let user = domain::User::register(Uuid::now_v7(), email.0, name.0, Utc::now());
    let announcement = announce(Event::Registered, &user).by(&caller);
    // Who registers waits for another one who is registering with the same address.
    let address = user.email.to_ascii_lowercase();
    let written = change!(app.database, address, connection => insert_user(connection, &user, &announcement)).await?;
    app.wakeups.wake();
    let location = format!("/users/{}", user.id);
    Ok((ReadAfter::from(written), created(&location, User::from(user))).into_response())
}
