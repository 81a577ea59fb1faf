//! Registering a user.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use chassis::http::body::Json;
use chassis::http::document::WithBody;
use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use super::wire::{RegisterUser, Registered, User, location};
use crate::App;
use crate::db::users::insert_user;
use crate::domain;
use crate::error::Error;
use crate::events::{Kind, announce};

/// Register a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = RegisterUser, responses(Registered, WithBody))]
pub async fn post_user(
    State(app): State<App>,
    Json(RegisterUser { email, name }): Json<RegisterUser>,
) -> Result<(StatusCode, [(header::HeaderName, HeaderValue); 1], User), Error> {
    let user = domain::User::register(Uuid::now_v7(), email.0, name.0, Utc::now());
    let event = announce(Kind::Registered, &user);
    run!(app.database, connection => insert_user(connection, &user, &event)).await?;
    app.wakeups.wake();
    Ok((StatusCode::CREATED, [(header::LOCATION, location(user.id))], user.into()))
}
