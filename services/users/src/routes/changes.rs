//! Changing, deactivating, reactivating a user.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chassis::http::body::Json;
use chassis::http::conditional::IfMatch;
use chassis::http::document::{Changing, WithBody};
use chassis::http::path::Id;
use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use super::wire::{ChangeRefused, ChangeUser, Deactivated, User, UserNow};
use crate::App;
use crate::db::users::{find_user, update_user};
use crate::domain::{self, Changes, Status};
use crate::error::Error;
use crate::events::{Event, announce};

/// How often a change is retried after another request changed the same user first.
const ATTEMPTS: usize = 50;

/// Change a user.
#[utoipa::path(
    patch, path = "/users/{id}", tag = "users", params(Id, IfMatch),
    request_body(content((ChangeUser = "application/merge-patch+json"), (ChangeUser = "application/json"))),
    responses(UserNow, Changing, WithBody, ChangeRefused)
)]
pub async fn patch_user(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    Json(change): Json<ChangeUser>,
) -> Result<User, Error> {
    let changes = Changes::from(change);
    let change = |user: &domain::User| Ok(user.change(&changes, Utc::now())?);
    update(&app, id, &headers, change, Event::Changed).await
}

/// Reactivate a user.
#[utoipa::path(post, path = "/users/{id}/reactivate", tag = "users", params(Id, IfMatch), responses(UserNow, Changing))]
pub async fn reactivate_user(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<User, Error> {
    let reactivate = |user: &domain::User| Ok(user.with_status(Status::Active, Utc::now()));
    update(&app, id, &headers, reactivate, Event::Reactivated).await
}

/// Deactivate a user. Users are never deleted: orders refer to them.
#[utoipa::path(delete, path = "/users/{id}", tag = "users", params(Id, IfMatch), responses(Deactivated, Changing))]
pub async fn delete_user(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<StatusCode, Error> {
    let deactivate = |user: &domain::User| Ok(user.with_status(Status::Deactivated, Utc::now()));
    update(&app, id, &headers, deactivate, Event::Deactivated).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the user, changes it by `change`, and writes it, again if another request was faster. `None` leaves the user as it
/// is. No transaction is open in between: the write compares the version.
async fn update(
    app: &App,
    id: Uuid,
    headers: &HeaderMap,
    change: impl Fn(&domain::User) -> Result<Option<domain::User>, Error>,
    event: Event,
) -> Result<User, Error> {
    let if_match = IfMatch::read(headers);
    for _ in 0..ATTEMPTS {
        let user = run!(app.database, connection => find_user(connection, id)).await?.ok_or(Error::NotFound)?;
        if !if_match.allows(user.version) {
            return Err(Error::PreconditionFailed);
        }
        let Some(changed) = change(&user)? else { return Ok(user.into()) };
        let announcement = announce(event, &changed);
        let written = match event {
            Event::Deactivated => app.open_orders.deactivate(&app.database, &changed, &announcement).await?,
            _ => run!(app.database, connection => update_user(connection, &changed, &announcement)).await?,
        };
        if written {
            app.wakeups.wake();
            return Ok(changed.into());
        }
    }
    Err(Error::Contended)
}
