//! The routes of a service's events: the history of one subject, and the feed of all events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::event::{CloudEvent, LoggedEvent, Position};
use super::long_poll::{FeedPage, LongPolls};
use super::read_after::ReadAfter;
use super::store::EventStore;
use super::versions::newest;
use crate::auth::Caller;
use crate::http::conditional::Preconditions;
use crate::http::cursor;
use crate::http::document::{Reading, Unchanged, WithQuery, parameter};
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
    let log: Log = Arc::new(Arc::new(LongPolls::new(store)));
    OpenApiRouter::new().routes((schemas, history, methods)).routes(routes!(get_feed)).with_state(log)
}

/// Read the history of one.
///
/// A page of its events, oldest first.
#[utoipa::path(
    get, path = "/{id}/events", tag = "events", params(Id, Paging, Preconditions),
    responses(
        (status = 200, body = Page<CloudEvent>, description = "A page of events.", headers(("link" = String))),
        WithQuery,
        Reading,
        Unchanged,
    )
)]
async fn get_history(
    State(log): State<Log>,
    caller: Caller,
    id: Id,
    uri: Uri,
    query: Query,
    preconditions: Preconditions,
    seen: ReadAfter,
) -> Result<Response, Problem> {
    let history = log.history(caller, id, uri, query, seen).await?;
    // A history has no tag.
    preconditions.answer(None, || history)
}

/// Read the feed.
///
/// The events of all of them, each once, in an order that never changes. With `wait`, the answer is held until there is an
/// event. Go on with the cursor in `Link`, even if there was none.
#[utoipa::path(
    get, path = "/events", tag = "events", params(FeedRequest),
    responses(
        (
            status = 200, body = Vec<CloudEvent>, content_type = "application/cloudevents-batch+json",
            description = "Events. `Link` has the cursor of the next events.", headers(("link" = String)),
        ),
        WithQuery,
        Gone,
    )
)]
async fn get_feed(State(log): State<Log>, uri: Uri, query: Query, seen: ReadAfter) -> Result<Response, Problem> {
    log.feed(uri, query, seen).await
}

crate::responses! {
    /// A route over a log, whose oldest part may be archived.
    pub Gone {
        410: "Events that the answer needs were archived. The detail says what to do.",
    }
}

/// An [`EventStore`] behind a pointer: utoipa does not document generic handlers.
type Log = Arc<dyn Answer>;
type Answered<'a> = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send + 'a>>;

trait Answer: Send + Sync {
    fn history(&self, caller: Caller, id: Id, uri: Uri, query: Query, seen: ReadAfter) -> Answered<'_>;
    fn feed(&self, uri: Uri, query: Query, seen: ReadAfter) -> Answered<'_>;
}

impl<E: EventStore> Answer for Arc<LongPolls<E>> {
    fn history(&self, caller: Caller, id: Id, uri: Uri, query: Query, seen: ReadAfter) -> Answered<'_> {
        Box::pin(history(&self.store, caller, id, uri, query, seen))
    }

    fn feed(&self, uri: Uri, query: Query, seen: ReadAfter) -> Answered<'_> {
        Box::pin(feed(self, uri, query, seen))
    }
}

async fn history<E: EventStore>(
    store: &E,
    caller: Caller,
    Id(id): Id,
    uri: Uri,
    mut query: Query,
    seen: ReadAfter,
) -> Result<Response, Problem> {
    let list = format!("{}/{id}/events", E::SERVICE);
    let request = PageRequest::<i64>::read(&list, &mut query)?;
    query.finish()?;
    let unknown = || Problem::not_found(format!("{} has nothing with this id", E::SERVICE));
    if let Some(own) = caller.owner()
        && store.owner(id, seen).await.map_err(E::Error::into)? != Some(own)
    {
        return Err(unknown());
    }
    let found = store.history(id, request.after.unwrap_or(0), request.rows(), seen).await.map_err(E::Error::into)?;
    // Everything with an id has a first event.
    if found.items.is_empty() && request.after.is_none() {
        return Err(unknown());
    }
    let page = request.page(&list, found, |event: &LoggedEvent| event.version);
    Ok(page.map(|event| newest(&event, E::TYPES).into_owned().publish(E::SOURCE)).respond(&uri))
}

async fn feed<E: EventStore>(
    log: &Arc<LongPolls<E>>,
    uri: Uri,
    mut query: Query,
    seen: ReadAfter,
) -> Result<Response, Problem> {
    // Cursors of the feed are not valid for lists, nor those of one service for another.
    let list = format!("feed{}", E::SOURCE);
    let request = FeedRequest::read(&list, &mut query)?;
    query.finish()?;
    let FeedRequest { start, limit, wait } = request;
    let (next, page) = match start {
        // The end is read from no table, so the old side answers it until this process follows a switch. It is still
        // right: the end of an older epoch is before every later event.
        Start::End => (Cursor::from(log.store.end().await.map_err(E::Error::into)?), Arc::new(FeedPage::empty())),
        Start::Beginning => {
            let start = Cursor::default();
            let page = log.page(start.position, limit, wait, seen).await?;
            (start.behind(&page), page)
        }
        Start::After(after) => {
            // A standby may not know yet how far the log is archived.
            let seen = if after.archived_up_to.is_some() { ReadAfter::NOW } else { seen };
            let page = log.page(after.position, limit, wait, seen).await?;
            let next = after.behind(&page);
            // The archive has taken events away since the reader started.
            if next.archived_up_to.is_some() && next.archived_up_to != after.archived_up_to {
                return Err(gone(E::SERVICE));
            }
            (next, page)
        }
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::LINK, next_link(&uri, "after", &cursor::encode(&list, &next.to_bytes()))),
    ];
    // What a reader has seen here, its next read of another route must see, too.
    Ok((ReadAfter::from(next.position), headers, page.body.clone()).into_response())
}

fn gone(service: &str) -> Problem {
    let detail = format!(
        "events behind this cursor were archived: get a cursor by `from=end`, read the present state from /{service} with \
         the `Read-After` of that answer, and go on from that cursor; or start again without `after`, with the events that \
         the log still has"
    );
    Problem::new(StatusCode::GONE, detail).typed("events-archived", "Events archived")
}

/// How many events a response has at most.
type Limit = Whole<1, 1000>;
/// How many seconds a response waits for the first event at most.
type Wait = Whole<0, 30>;

/// Where a response starts.
enum Start {
    /// At the first event that the log still has.
    Beginning,
    /// Behind a cursor.
    After(Cursor),
    /// Behind all events: the response has none.
    End,
}

/// A cursor of the feed.
#[derive(Clone, Default)]
struct Cursor {
    /// The position of the last event seen.
    position: Position,
    /// Up to where the log was archived when its reader started, if the position is before that.
    archived_up_to: Option<String>,
}

impl Cursor {
    /// The cursor behind a page that starts at this one.
    fn behind(&self, page: &FeedPage) -> Self {
        page.last.clone().map_or_else(|| self.clone(), |(position, archived_up_to)| Self { position, archived_up_to })
    }
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self { position, archived_up_to: None }
    }
}

impl Place for Cursor {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.position.to_bytes();
        bytes.extend_from_slice(self.archived_up_to.as_deref().unwrap_or_default().as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (position, archived_up_to) = bytes.split_at_checked(Position::BYTES)?;
        let archived_up_to = str::from_utf8(archived_up_to).ok()?;
        let archived_up_to = (!archived_up_to.is_empty()).then(|| archived_up_to.to_owned());
        Some(Self { position: Position::from_bytes(position)?, archived_up_to })
    }
}

/// The parameters of the feed.
struct FeedRequest {
    start: Start,
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
            let position = cursor::decode(list, text).and_then(|bytes| Cursor::from_bytes(&bytes));
            position.ok_or("is not a cursor of this feed: copy it from the Link header".into())
        })?;
        let from_end = query.optional("from", |text| match text {
            "end" => Ok(()),
            _ => Err("must be `end`; leave it out to read from the start".into()),
        })?;
        let start = match (from_end, after) {
            (None, None) => Start::Beginning,
            (None, Some(after)) => Start::After(after),
            (Some(()), None) => Start::End,
            (Some(()), Some(_)) => return Err(reject("from", "cannot be combined with `after`")),
        };
        let Whole(limit) = query.read::<Limit>("limit")?.unwrap_or(Whole(100));
        let Whole(wait) = query.read::<Wait>("wait")?.unwrap_or(Whole(0));
        Ok(Self { start, limit, wait: Duration::from_secs(wait.unsigned_abs()) })
    }
}
