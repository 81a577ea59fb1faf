//! Changing, deactivating, reactivating a user.

use axum::extract::State;
use axum::http::StatusCode;
use chassis::auth::Caller;
use chassis::events::ReadAfter;
use chassis::http::body::Json;
use chassis::http::conditional::Preconditions;
use chassis::http::document::{Changing, WithBody};
use chassis::http::path::Id;
use chrono::Utc;
use shared_db::{change, run};
use uuid::Uuid;

use super::wire::{ChangeRefused, ChangeUser, Deactivated, User, UserNow};
use crate::App;
use crate::db::users::{find_user_to_change, update_user};
use crate::domain::{self, Changes, Status};
use crate::error::Error;
use crate::events::{Event, announce};

/// How often a change is retried after another request changed the same user first.
const ATTEMPTS: usize = 50;

/// Change a user.
///
/// A field that is left out stays as it is. A change that changes nothing keeps the version.
#[utoipa::path(
    patch, path = "/users/{id}", tag = "users", params(Id, Preconditions),
    request_body(content(
        (ChangeUser = "application/merge-patch+json", example = json!({ "name": "Grace B. M. Hopper" })),
        (ChangeUser = "application/json", example = json!({ "email": "hopper@example.org" })),
    )),
    responses(UserNow, Changing, WithBody, ChangeRefused)
)]
pub async fn patch_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
    Json(change): Json<ChangeUser>,
) -> Result<(ReadAfter, User), Error> {
    let changes = Changes::from(change);
    let change = |user: &domain::User| Ok(user.change(&changes, Utc::now())?);
    update(&app, &caller, id, &preconditions, change, Event::Changed).await
}

/// Reactivate a user.
///
/// One who is active stays so.
#[utoipa::path(
    post,
    path = "/users/{id}/reactivate",
    tag = "users",
    params(Id, Preconditions),
    responses(UserNow, Changing)
)]
pub async fn reactivate_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<(ReadAfter, User), Error> {
    let reactivate = |user: &domain::User| Ok(user.with_status(Status::Active, Utc::now()));
    update(&app, &caller, id, &preconditions, reactivate, Event::Reactivated).await
}

/// Deactivate a user.
///
/// Users are never deleted: orders refer to them. One with open orders is not deactivated.
#[utoipa::path(delete, path = "/users/{id}", tag = "users", params(Id, Preconditions), responses(Deactivated, Changing))]
pub async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<(ReadAfter, StatusCode), Error> {
    let deactivate = |user: &domain::User| Ok(user.with_status(Status::Deactivated, Utc::now()));
    let (seen, _) = update(&app, &caller, id, &preconditions, deactivate, Event::Deactivated).await?;
    Ok((seen, StatusCode::NO_CONTENT))
}

/// Reads the user, changes it by `to`, and writes it, again if another request was faster. `None` leaves the user as it
/// is. No transaction is open in between: the write compares the version.
async fn update(
    app: &App,
    caller: &Caller,
    id: Uuid,
    preconditions: &Preconditions,
    to: impl Fn(&domain::User) -> Result<Option<domain::User>, Error>,
    event: Event,
) -> Result<(ReadAfter, User), Error> {
    for _ in 0..ATTEMPTS {
        let found = run!(app.database, connection => find_user_to_change(connection, id)).await?;
        let (user, seen) = found.ok_or(Error::NotFound)?;
        preconditions.allow(user.version)?;
        let Some(changed) = to(&user)? else { return Ok((seen.into(), user.into())) };
        let announcement = announce(event, &changed).by(caller);
        let written = match event {
            Event::Deactivated => app.open_orders.deactivate(&app.database, &changed, &announcement).await?,
            _ => change!(app.database, id, connection => update_user(connection, &changed, &announcement)).await?,
        };
        if let Some(written) = written {
            app.wakeups.wake();
            return Ok((written.into(), changed.into()));
        }
    }
    Err(Error::Contended)
}
