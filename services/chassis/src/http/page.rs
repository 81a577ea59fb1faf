//! Pages of lists. A page starts after the last item of the previous page, so new items do not shift it.

use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use crate::http::cursor;
use crate::http::document::parameter;
use crate::http::json;
use crate::http::limited::Whole;
use crate::http::problem::Problem;
use crate::http::query::Query;

/// How many items a page has at most.
type Limit = Whole<1, 100>;
/// The limit if the client does not set one.
const DEFAULT_LIMIT: Limit = Whole(20);

/// The page of a list that a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<P> {
    /// The place of the last item that the client has seen.
    pub after: Option<P>,
    limit: Limit,
}

/// The parameters that [`PageRequest::read`] reads, in the OpenAPI document.
#[derive(Debug)]
pub enum Paging {}

impl IntoParams for Paging {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            parameter("limit", ParameterIn::Query, "how many items at most (default 20)", Limit::schema()),
            parameter("cursor", ParameterIn::Query, "`next_cursor` of the previous page", String::schema()),
        ]
    }
}

/// A place in a list: the values that its order compares.
pub trait Place: Sized {
    /// Writes the place as bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads what [`Place::to_bytes`] wrote.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Place for Uuid {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

/// A version in a history.
impl Place for i64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl<P: Place> PageRequest<P> {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// 400 for a limit out of range, and for a cursor that was not issued for `list`.
    pub fn read(list: &str, query: &mut Query) -> Result<Self, Problem> {
        let limit = query.read("limit")?.unwrap_or(DEFAULT_LIMIT);
        let after = query.optional("cursor", |text| {
            let place = cursor::decode(list, text).and_then(|bytes| P::from_bytes(&bytes));
            place.ok_or("was not issued by this list: take it from `next_cursor` as it is".into())
        })?;
        Ok(Self { after, limit })
    }

    /// The number of rows to fetch: one more than the page shows, which says whether there is a next page.
    pub fn rows(&self) -> i64 {
        self.limit.0 + 1
    }

    /// Makes the page from [`Self::rows`] rows of `list`.
    pub fn page<T>(&self, list: &str, rows: impl Into<Rows<T>>, place: impl Fn(&T) -> P) -> Page<T>
    where
        P: Send + 'static,
    {
        let Rows { mut items, is_cut } = rows.into();
        let limit = self.limit.0 as usize;
        let more = is_cut || items.len() > limit;
        items.truncate(limit);
        let places: Vec<P> = items.iter().map(place).collect();
        let list = list.to_owned();
        let cursor_behind = move |index: usize| cursor::encode(&list, &places[index].to_bytes());
        let next_cursor = more.then(|| cursor_behind(items.len() - 1));
        Page { items, next_cursor, cursor_behind: Some(Box::new(cursor_behind)) }
    }
}

/// The most bytes of a page. A single item may be larger.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// The rows for a page.
#[derive(Debug)]
pub struct Rows<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Whether there were more, for which the page has no room: they stayed in the database.
    pub is_cut: bool,
}

impl<T> From<Vec<T>> for Rows<T> {
    /// All rows that were asked for.
    fn from(items: Vec<T>) -> Self {
        Self { items, is_cut: false }
    }
}

/// Rows that each say whether they are all.
impl<T> FromIterator<(bool, T)> for Rows<T> {
    fn from_iter<I: IntoIterator<Item = (bool, T)>>(rows: I) -> Self {
        let (cut, items): (Vec<bool>, _) = rows.into_iter().unzip();
        Self { items, is_cut: cut.contains(&true) }
    }
}

type CursorBehind = Box<dyn Fn(usize) -> String + Send>;

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last page.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
    /// The cursor behind the item at an index, if the list goes on there.
    #[serde(skip)]
    #[schema(ignore)]
    cursor_behind: Option<CursorBehind>,
}

impl<T> Page<T> {
    /// A page that is the whole list.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None, cursor_behind: None }
    }

    /// The page with other items in the places of its own.
    pub fn with_items<U>(self, items: Vec<U>) -> Page<U> {
        Page { items, next_cursor: self.next_cursor, cursor_behind: self.cursor_behind }
    }

    /// The page with each item changed by `change`.
    pub fn map<U>(mut self, change: impl FnMut(T) -> U) -> Page<U> {
        let items = std::mem::take(&mut self.items).into_iter().map(change).collect();
        self.with_items(items)
    }
}

impl<T: Serialize> Page<T> {
    /// The response, with a `Link` to the next page of the list at `uri`. A page that is too large ends sooner.
    pub fn respond(mut self, uri: &Uri) -> Response {
        let mut bytes = json::write(&self);
        if let (true, Some(cursor_behind)) = (bytes.len() > PAGE_BYTES, &self.cursor_behind) {
            let count = self.count_fitting();
            self.next_cursor = Some(cursor_behind(count - 1));
            self.items.truncate(count);
            bytes = json::write(&self);
        }
        let mut response = json::respond(bytes);
        if let Some(cursor) = &self.next_cursor {
            response.headers_mut().insert(header::LINK, next_link(uri, "cursor", cursor));
        }
        response
    }

    /// How many items fit into a page, and at least one.
    fn count_fitting(&self) -> usize {
        // What stands around the items is shorter.
        let mut bytes = 1024;
        let sizes = self.items.iter().map(|item| json::write(item).len() + 1);
        let fits = |size: &usize| {
            bytes += size;
            bytes <= PAGE_BYTES
        };
        sizes.take_while(fits).count().max(1)
    }
}

/// A `Link` header to `uri` with the parameter `name` set to `value`. It drops the parameter `from`.
pub fn next_link(uri: &Uri, name: &str, value: &str) -> HeaderValue {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (parameter, present) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if parameter != name && parameter != "from" {
            query.append_pair(&parameter, &present);
        }
    }
    query.append_pair(name, value);
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish());
    HeaderValue::from_str(&link).unwrap_or_else(|_| HeaderValue::from_static(""))
}
