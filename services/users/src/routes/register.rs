//! Registering a user.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use chassis::http::body::Json;
use chassis::http::problem::ProblemBody;
use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use super::wire::{RegisterUser, User, location};
use crate::App;
use crate::db::users::insert_user;
use crate::domain;
use crate::error::Error;
use crate::events::{Event, announce};

/// Register a user.
#[utoipa::path(
    post,
    path = "/users",
    tag = "users",
    request_body = RegisterUser,
    responses(
        (status = 201, body = User, headers(("location" = String), ("etag" = String))),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "malformed JSON"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "email-taken"),
        (status = 413, body = ProblemBody<'_>, content_type = "application/problem+json", description = "over 64 KiB"),
        (status = 415, body = ProblemBody<'_>, content_type = "application/problem+json", description = "not JSON"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid fields"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn post_user(
    State(app): State<App>,
    Json(RegisterUser { email, name }): Json<RegisterUser>,
) -> Result<(StatusCode, [(header::HeaderName, HeaderValue); 1], User), Error> {
    let user = domain::User::register(Uuid::now_v7(), email, name, Utc::now());
    let announcement = announce(Event::Registered, &user);
    run!(app.database, connection => insert_user(connection, &user, &announcement)).await?;
    app.wakeups.wake();
    Ok((StatusCode::CREATED, [(header::LOCATION, location(user.id))], user.into()))
}
