//! Changing, deactivating, reactivating a user.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chassis::http::body::Json;
use chassis::http::conditional::IfMatch;
use chassis::http::path::Id;
use chassis::http::problem::ProblemBody;
use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use super::wire::{ChangeUser, User};
use crate::App;
use crate::db::users::{Deactivation, find_user, update_user};
use crate::domain::{self, Changes, Status};
use crate::error::Error;
use crate::events::{Event, announce};

/// How often a change is tried again after another request changed the same user first. Each time one of them succeeds.
const ATTEMPTS: usize = 50;

/// Change a user.
#[utoipa::path(
    patch,
    path = "/users/{id}",
    tag = "users",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    request_body(content((ChangeUser = "application/merge-patch+json"), (ChangeUser = "application/json"))),
    responses(
        (status = 200, body = User, headers(("etag" = String))),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "malformed JSON"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "email-taken, user-deactivated"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 413, body = ProblemBody<'_>, content_type = "application/problem+json", description = "over 64 KiB"),
        (status = 415, body = ProblemBody<'_>, content_type = "application/problem+json", description = "not JSON"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json", description = "invalid fields"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn patch_user(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    Json(change): Json<ChangeUser>,
) -> Result<User, Error> {
    let changes = Changes::from(change);
    update(&app, id, &IfMatch::read(&headers), Event::Changed, |user| Ok(user.change(&changes, Utc::now())?)).await
}

/// Reactivate a user.
#[utoipa::path(
    post,
    path = "/users/{id}/reactivate",
    tag = "users",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    responses(
        (status = 200, body = User, headers(("etag" = String)), description = "active now, or was before"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn reactivate_user(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<User, Error> {
    let reactivate = |user: &domain::User| Ok(user.with_status(Status::Active, Utc::now()));
    update(&app, id, &IfMatch::read(&headers), Event::Reactivated, reactivate).await
}

/// Deactivate a user. Users are never deleted: orders refer to them.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    tag = "users",
    params(("id" = Uuid, Path), ("if-match" = Option<String>, Header, description = "the ETag that was read")),
    responses(
        (status = 204, description = "deactivated now, or was before"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json", description = "open-orders"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json", description = "it has changed"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn delete_user(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<StatusCode, Error> {
    let if_match = IfMatch::read(&headers);
    for _ in 0..ATTEMPTS {
        let user = read(&app, id, &if_match).await?;
        let Some(deactivated) = user.with_status(Status::Deactivated, Utc::now()) else {
            return Ok(StatusCode::NO_CONTENT);
        };
        let announcement = announce(Event::Deactivated, &deactivated);
        match app.open_orders.deactivate(&app.database, &deactivated, &announcement).await? {
            Deactivation::Done => {
                app.wakeups.wake();
                return Ok(StatusCode::NO_CONTENT);
            }
            Deactivation::OpenOrders => return Err(Error::OpenOrders),
            Deactivation::Changed => {}
        }
    }
    Err(Error::Contended)
}

/// Reads the user, decides, and stores what was decided, again if another request was faster. No transaction is held
/// open meanwhile: the version guards the write. Deciding `None` leaves the user as it is.
async fn update(
    app: &App,
    id: Uuid,
    if_match: &IfMatch,
    event: Event,
    decide: impl Fn(&domain::User) -> Result<Option<domain::User>, Error>,
) -> Result<User, Error> {
    for _ in 0..ATTEMPTS {
        let user = read(app, id, if_match).await?;
        let Some(changed) = decide(&user)? else { return Ok(user.into()) };
        let announcement = announce(event, &changed);
        if run!(app.database, connection => update_user(connection, &changed, &announcement)).await? {
            app.wakeups.wake();
            return Ok(changed.into());
        }
    }
    Err(Error::Contended)
}

async fn read(app: &App, id: Uuid, if_match: &IfMatch) -> Result<domain::User, Error> {
    let user = run!(app.database, connection => find_user(connection, id)).await?.ok_or(Error::NotFound)?;
    if if_match.allows(user.version) { Ok(user) } else { Err(Error::PreconditionFailed) }
}
