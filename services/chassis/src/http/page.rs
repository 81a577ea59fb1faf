//! Keyset pages of lists.

use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::cursor;
use crate::http::json::json;
use crate::http::problem::Problem;
use crate::http::query::Query;

/// Items of a page if the client does not say.
const DEFAULT_LIMIT: u32 = 20;
/// Items of a page at most.
const MAX_LIMIT: u32 = 100;

/// Which page of a list is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<P> {
    /// The place of the last item seen, if any.
    pub after: Option<P>,
    /// How many items at most.
    pub limit: u32,
}

/// A place in a list: what its order is made of.
pub trait Place: Sized {
    /// Writes it.
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

/// A version within a history.
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
        let limit = query.integer("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        let after = query.optional("cursor", |text| {
            let place = cursor::decode(list, text).and_then(|bytes| P::from_bytes(&bytes));
            place.ok_or("was not issued by this list: take it from `next_cursor` as it is".into())
        })?;
        Ok(Self { after, limit })
    }

    /// The number of rows to fetch: one more than shown, to see whether there is a next page.
    pub fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Makes the page from [`Self::rows`] rows of `list`.
    pub fn page<T>(&self, list: &str, mut items: Vec<T>, place: impl Fn(&T) -> P) -> Page<T> {
        let limit = self.limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = match items.last() {
            Some(last) if more => Some(cursor::encode(list, &place(last).to_bytes())),
            _ => None,
        };
        Page { items, next_cursor }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page starts; null on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// The answer, with a `Link` to the next page of the list at `uri`.
    pub fn respond(&self, uri: &Uri) -> Response {
        let mut response = json(self);
        if let Some(cursor) = &self.next_cursor {
            response.headers_mut().insert(header::LINK, next_link(uri, "cursor", cursor));
        }
        response
    }
}

/// A `Link` header to `uri` with the parameter `name` replaced by `value`, which also takes the place of `from`.
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
