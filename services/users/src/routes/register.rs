//! Registering a user.

use axum::extract::State;
use axum::response::Response;
use chassis::http::body::Json;
use chassis::http::document::WithBody;
use chassis::http::json::created;
use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use super::wire::{RegisterUser, Registered, User};
use crate::App;
use crate::db::users::insert_user;
use crate::domain;
use crate::error::Error;
use crate::events::{Event, announce};

/// Register a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = RegisterUser, responses(Registered, WithBody))]
pub async fn post_user(
    State(app): State<App>,
    Json(RegisterUser { email, name }): Json<RegisterUser>,
) -> Result<Response, Error> {
    let user = domain::User::register(Uuid::now_v7(), email.0, name.0, Utc::now());
    let announcement = announce(Event::Registered, &user);
    run!(app.database, connection => insert_user(connection, &user, &announcement)).await?;
    app.wakeups.wake();
    Ok(created(&format!("/users/{}", user.id), User::from(user)))
}
