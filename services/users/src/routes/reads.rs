//! Reading users.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use chassis::auth::Caller;
use chassis::events::ReadAfter;
use chassis::http::conditional::{Preconditions, etag};
use chassis::http::document::{self, Reading, Unchanged, WithQuery, parameter};
use chassis::http::limited::Text;
use chassis::http::page::{Page, PageRequest, Paging};
use chassis::http::path::{Id, parse_id};
use chassis::http::query::{Query, reject};
use shared_db::run;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, Schema};
use utoipa::{IntoParams, PartialSchema};
use uuid::Uuid;

use super::wire::{User, UserNow};
use crate::App;
use crate::db::users;
use crate::domain::{self, MAX_EMAIL};
use crate::error::Error;

/// The name of the list of users, for cursors.
const USERS: &str = "users";
/// How many ids one request may name.
const MAX_IDS: usize = 100;

/// Read a user.
///
/// The entity tag is the version.
#[utoipa::path(get, path = "/users/{id}", tag = "users", params(Id, Preconditions), responses(UserNow, Unchanged, Reading))]
pub async fn get_user(
    State(app): State<App>,
    Id(id): Id,
    preconditions: Preconditions,
    seen: ReadAfter,
) -> Result<Response, Error> {
    let seen = seen.transaction();
    let user = run!(app.database, seen, connection => users::find_user(connection, id)).await?.ok_or(Error::NotFound)?;
    let tag = etag(&[user.version]);
    Ok(preconditions.answer(Some(tag), || User::from(user).into_response())?)
}

/// List users.
///
/// Newest first; or the one with an email address, or those with certain ids.
#[utoipa::path(
    get, path = "/users", tag = "users", params(Filter, Paging),
    responses((status = 200, body = Page<User>, description = "A page of users.", headers(("link" = String))), WithQuery)
)]
pub async fn list_users(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    mut query: Query,
    seen: ReadAfter,
) -> Result<Response, Error> {
    let ids = query.all("id");
    if !ids.is_empty() {
        return users_by_id(&app, &caller, &ids, query, seen).await.map(|page| page.respond(&uri));
    }
    let request = PageRequest::<Uuid>::read(USERS, &mut query)?;
    let email: Option<EmailFilter> = query.read("email")?;
    query.finish()?;
    let seen = seen.transaction();
    let on_page = |user: &domain::User| caller.may_touch(user.id) && request.after.is_none_or(|after| user.id < after);
    let found = match (email, caller.owner()) {
        (Some(Text(email)), _) => {
            let found = run!(app.database, seen, connection => users::find_user_by_email(connection, &email)).await?;
            found.into_iter().filter(on_page).collect()
        }
        (None, Some(own)) => {
            let found = run!(app.database, seen, connection => users::find_user(connection, own)).await?;
            found.into_iter().filter(on_page).collect()
        }
        (None, None) => {
            run!(app.database, seen, connection => users::list_users(connection, request.after, request.rows())).await?
        }
    };
    Ok(request.page(USERS, found, |user: &domain::User| user.id).map(User::from).respond(&uri))
}

async fn users_by_id(
    app: &App,
    caller: &Caller,
    ids: &[String],
    query: Query,
    seen: ReadAfter,
) -> Result<Page<User>, Error> {
    if query.finish().is_err() {
        return Err(reject("id", "cannot be combined with other parameters").into());
    }
    if ids.len() > MAX_IDS {
        return Err(reject("id", &format!("may be given {MAX_IDS} times at most")).into());
    }
    let ids: Option<Vec<Uuid>> = ids.iter().map(|id| parse_id(id)).collect();
    let mut ids = ids.ok_or_else(|| reject("id", "must be a UUID"))?;
    ids.retain(|id| caller.may_touch(*id));
    let seen = seen.transaction();
    let found = run!(app.database, seen, connection => users::find_users(connection, &ids)).await?;
    Ok(Page::whole(found.into_iter().map(User::from).collect()))
}

/// Any text that an email address fits in.
type EmailFilter = Text<1, MAX_EMAIL>;

/// The filters of the list of users, in the OpenAPI document.
enum Filter {}

impl IntoParams for Filter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let email = "only the user with this address, without regard to case";
        let id = "these users, all in one response, unknown ones left out; excludes the other parameters";
        let ids = Schema::Array(ArrayBuilder::new().items(document::uuid()).max_items(Some(MAX_IDS)).build());
        vec![
            parameter("email", ParameterIn::Query, email, EmailFilter::schema()),
            parameter("id", ParameterIn::Query, id, ids),
        ]
    }
}
