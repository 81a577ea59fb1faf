//! What has happened: to one user, and to all.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use chassis::events::{CloudEvent, FeedRequest, Position, StoredEvent};
use chassis::http::document::{Reading, WithQuery};
use chassis::http::page::{Page, PageRequest, Paging};
use chassis::http::path::Id;
use chassis::http::query::Query;
use shared_db::{Database, DatabaseError, run};

use crate::App;
use crate::db::events;
use crate::error::Error;
use crate::events::SOURCE;

/// A user's history, oldest first.
#[utoipa::path(
    get,
    path = "/users/{id}/events",
    tag = "events",
    params(Id, Paging),
    responses(
        (status = 200, body = Page<CloudEvent>, description = "A page of events.", headers(("link" = String))),
        WithQuery,
        Reading,
    )
)]
pub async fn get_history(State(app): State<App>, Id(id): Id, uri: Uri, mut query: Query) -> Result<Response, Error> {
    let list = format!("users/{id}/events");
    let request = PageRequest::<i64>::read(&list, &mut query)?;
    query.finish()?;
    let after = request.after.unwrap_or(0);
    let found = run!(app.database, connection => events::history(connection, id, after, request.rows())).await?;
    // Every user has a first event.
    if found.is_empty() && request.after.is_none() {
        return Err(Error::NotFound);
    }
    let page = request.page(&list, found, |event: &StoredEvent| event.version);
    let items = page.items.into_iter().map(|event| event.publish(SOURCE)).collect();
    Ok(Page { items, next_cursor: page.next_cursor }.respond(&uri))
}

/// The feed: what happened to all users, each event once, in an order that never changes.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(
        ("after" = Option<String>, Query, description = "where to go on: from the Link header of the answer before; without it, from the start"),
        ("from" = Option<String>, Query, pattern = "^end$", description = "`end`: no events, but where those go on that are not committed yet"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000),
        ("wait" = Option<u32>, Query, minimum = 0, maximum = 30, description = "seconds to hold the answer until there is an event"),
    ),
    responses(
        (
            status = 200,
            body = Vec<CloudEvent>,
            content_type = "application/cloudevents-batch+json",
            description = "Events. `Link` has the cursor of the next ones.",
            headers(("link" = String))
        ),
        WithQuery,
    )
)]
pub async fn get_feed(State(app): State<App>, uri: Uri, mut query: Query) -> Result<Response, Error> {
    let request = FeedRequest::read(SOURCE, &mut query)?;
    query.finish()?;
    let Some(after) = request.after else {
        let end = run!(app.database, connection => events::end(connection)).await?;
        return Ok(FeedRequest::respond(SOURCE, &uri, end, Vec::new()));
    };
    let limit = request.limit.into();
    let found = app.wakeups.poll(request.wait, || fetch(app.database.clone(), after, limit)).await?;
    Ok(FeedRequest::respond(SOURCE, &uri, after, found))
}

async fn fetch(database: Database, after: Position, limit: i64) -> Result<Vec<StoredEvent>, DatabaseError> {
    run!(database, connection => events::feed(connection, after, limit)).await
}
