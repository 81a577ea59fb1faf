//! The routes of a service's events: the history of one subject, and the feed of all events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::event::{CloudEvent, LoggedEvent, Position};
use super::store::EventStore;
use crate::http::cursor;
use crate::http::document::{Reading, WithQuery, parameter};
use crate::http::json::json;
use crate::http::limited::Whole;
use crate::http::page::{Page, PageRequest, Paging, Place, next_link};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::query::{Query, reject};

/// The routes, for any service: `/<service>/{id}/events` and `/events`.
pub fn routes<E: EventStore, S: Clone + Send + Sync + 'static>(store: E) -> OpenApiRouter<S> {
    let (schemas, mut history, methods) = routes!(get_history);
    // The annotation cannot contain the service's name.
    let path = format!("/{}/{{id}}/events", E::SERVICE);
    history.paths = history.paths.into_values().map(|item| (path.clone(), item)).collect();
    let log: Log = Arc::new(store);
    OpenApiRouter::new().routes((schemas, history, methods)).routes(routes!(get_feed)).with_state(log)
}

/// The history of one of them: its events, oldest first.
#[utoipa::path(
    get, path = "/{id}/events", tag = "events", params(Id, Paging),
    responses(
        (status = 200, body = Page<CloudEvent>, description = "A page of events.", headers(("link" = String))),
        WithQuery,
        Reading,
    )
)]
async fn get_history(State(log): State<Log>, id: Id, uri: Uri, query: Query) -> Result<Response, Problem> {
    log.history(id, uri, query).await
}

/// The feed: the events of all of them, each once, in an order that never changes.
#[utoipa::path(
    get, path = "/events", tag = "events", params(FeedRequest),
    responses(
        (
            status = 200, body = Vec<CloudEvent>, content_type = "application/cloudevents-batch+json",
            description = "Events. `Link` has the cursor of the next events.", headers(("link" = String)),
        ),
        WithQuery,
    )
)]
async fn get_feed(State(log): State<Log>, uri: Uri, query: Query) -> Result<Response, Problem> {
    log.feed(uri, query).await
}

/// An [`EventStore`] behind a pointer: utoipa does not document generic handlers.
type Log = Arc<dyn Answer>;
type Answered<'a> = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send + 'a>>;

trait Answer: Send + Sync {
    fn history(&self, id: Id, uri: Uri, query: Query) -> Answered<'_>;
    fn feed(&self, uri: Uri, query: Query) -> Answered<'_>;
}

impl<E: EventStore> Answer for E {
    fn history(&self, id: Id, uri: Uri, query: Query) -> Answered<'_> {
        Box::pin(history(self, id, uri, query))
    }

    fn feed(&self, uri: Uri, query: Query) -> Answered<'_> {
        Box::pin(feed(self, uri, query))
    }
}

async fn history<E: EventStore>(store: &E, Id(id): Id, uri: Uri, mut query: Query) -> Result<Response, Problem> {
    let list = format!("{}/{id}/events", E::SERVICE);
    let request = PageRequest::<i64>::read(&list, &mut query)?;
    query.finish()?;
    let found = store.history(id, request.after.unwrap_or(0), request.rows()).await.map_err(E::Error::into)?;
    // Everything with an id has a first event.
    if found.is_empty() && request.after.is_none() {
        return Err(Problem::not_found(format!("{} has nothing with this id", E::SERVICE)));
    }
    let page = request.page(&list, found, |event: &LoggedEvent| event.version);
    let items = page.items.into_iter().map(|event| event.publish(E::SOURCE)).collect();
    Ok(Page { items, next_cursor: page.next_cursor }.respond(&uri))
}

async fn feed<E: EventStore>(store: &E, uri: Uri, mut query: Query) -> Result<Response, Problem> {
    // Cursors of the feed are not valid for lists, nor those of one service for another.
    let list = format!("feed{}", E::SOURCE);
    let request = FeedRequest::read(&list, &mut query)?;
    query.finish()?;
    let (next, events): (_, Vec<CloudEvent>) = match request.after {
        // The end is read from no table, so the old side answers it until this process follows a switch. It is still
        // right: the end of an older epoch is before every later event.
        None => (store.end().await.map_err(E::Error::into)?, Vec::new()),
        Some(after) => {
            let fetch = || store.feed(after, request.limit);
            let found = store.wakeups().poll(request.wait, fetch).await.map_err(E::Error::into)?;
            let next = found.last().map_or(after, |(position, _)| *position);
            (next, found.into_iter().map(|(_, event)| event.publish(E::SOURCE)).collect())
        }
    };
    let mut response = json(&events);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::LINK, next_link(&uri, "after", &cursor::encode(&list, &next.to_bytes())));
    Ok(response)
}

/// How many events a response has at most.
type Limit = Whole<1, 1000>;
/// How many seconds a response waits for the first event at most.
type Wait = Whole<0, 30>;

/// The parameters of the feed.
struct FeedRequest {
    /// The position of the last event seen; `None` asks for the end only.
    after: Option<Position>,
    limit: i64,
    /// How long to wait for the first event.
    wait: Duration,
}

impl IntoParams for FeedRequest {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let after = "where to go on, from the Link header of the previous response; without it, from the start";
        let from = "`end`: no events, but in Link the position behind all that are committed";
        let end = Schema::Object(ObjectBuilder::new().schema_type(Type::String).pattern(Some("^end$")).build());
        vec![
            parameter("after", ParameterIn::Query, after, String::schema()),
            parameter("from", ParameterIn::Query, from, end),
            parameter("limit", ParameterIn::Query, "how many events at most (default 100)", Limit::schema()),
            parameter("wait", ParameterIn::Query, "seconds to wait until there is an event", Wait::schema()),
        ]
    }
}

impl FeedRequest {
    fn read(list: &str, query: &mut Query) -> Result<Self, Problem> {
        let after = query.optional("after", |text| {
            let position = cursor::decode(list, text).and_then(|bytes| Position::from_bytes(&bytes));
            position.ok_or("is not a cursor of this feed: copy it from the Link header".into())
        })?;
        let from_end = query.optional("from", |text| match text {
            "end" => Ok(()),
            _ => Err("must be `end`; leave it out to read from the start".into()),
        })?;
        let after = match (from_end, after) {
            (None, after) => Some(after.unwrap_or_default()),
            (Some(()), None) => None,
            (Some(()), Some(_)) => return Err(reject("from", "cannot be combined with `after`")),
        };
        let Whole(limit) = query.read::<Limit>("limit")?.unwrap_or(Whole(100));
        let Whole(wait) = query.read::<Wait>("wait")?.unwrap_or(Whole(0));
        Ok(Self { after, limit, wait: Duration::from_secs(wait.unsigned_abs()) })
    }
}
