//! Reading users.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chassis::http::conditional::{etag, none_match_names};
use chassis::http::page::{Page, PageRequest};
use chassis::http::path::{Id, parse_id};
use chassis::http::problem::ProblemBody;
use chassis::http::query::{Query, reject};
use shared_db::run;
use uuid::Uuid;

use super::USERS;
use super::wire::User;
use crate::App;
use crate::db::users;
use crate::domain::{self, MAX_EMAIL};
use crate::error::Error;

/// Users asked for by id at most.
const MAX_IDS: usize = 100;

/// Read a user.
#[utoipa::path(
    get,
    path = "/users/{id}",
    tag = "users",
    params(("id" = Uuid, Path), ("if-none-match" = Option<String>, Header, description = "the ETag the client has")),
    responses(
        (status = 200, body = User, headers(("etag" = String))),
        (status = 304, description = "the client has it already"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn get_user(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> Result<Response, Error> {
    let user = run!(app.database, connection => users::find_user(connection, id)).await?.ok_or(Error::NotFound)?;
    let tag = etag(user.version);
    if none_match_names(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(User::from(user).into_response())
}

/// List users, newest first; or those with one email address, or with certain ids.
#[utoipa::path(
    get,
    path = "/users",
    tag = "users",
    params(
        ("email" = Option<String>, Query, description = "only the user with this address, without regard to case", min_length = 1, max_length = 254),
        ("id" = Option<Vec<Uuid>>, Query, description = "these users, all in one answer, unknown ones left out; excludes the other parameters", max_items = 100),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = Page<User>, headers(("link" = String))),
        (status = 400, body = ProblemBody<'_>, content_type = "application/problem+json", description = "a bad parameter"),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json", description = "try again"),
    )
)]
pub async fn list_users(State(app): State<App>, uri: Uri, mut query: Query) -> Result<Response, Error> {
    let ids = query.all("id");
    if !ids.is_empty() {
        return users_by_id(&app, ids, query).await.map(|page| page.respond(&uri));
    }
    let request = PageRequest::<Uuid>::read(USERS, &mut query)?;
    let email = query.text("email", 1..=MAX_EMAIL)?;
    query.finish()?;
    let found = match email {
        Some(email) => {
            let found = run!(app.database, connection => users::find_user_by_email(connection, &email)).await?;
            found.into_iter().filter(|user| request.after.is_none_or(|after| user.id < after)).collect()
        }
        None => run!(app.database, connection => users::list_users(connection, request.after, request.rows())).await?,
    };
    let page = request.page(USERS, found, |user: &domain::User| user.id);
    Ok(Page { items: page.items.into_iter().map(User::from).collect(), next_cursor: page.next_cursor }.respond(&uri))
}

async fn users_by_id(app: &App, ids: Vec<String>, query: Query) -> Result<Page<User>, Error> {
    if query.finish().is_err() {
        return Err(reject("id", "cannot be combined with other parameters").into());
    }
    if ids.len() > MAX_IDS {
        return Err(reject("id", "may be given 100 times at most").into());
    }
    let ids: Option<Vec<Uuid>> = ids.iter().map(|id| parse_id(id)).collect();
    let ids = ids.ok_or_else(|| reject("id", "must be a UUID"))?;
    let found = run!(app.database, connection => users::find_users(connection, &ids)).await?;
    Ok(Page { items: found.into_iter().map(User::from).collect(), next_cursor: None })
}
