//! Reads after one's own changes. The answer to a change says in `Read-After` where its event is in the service's log. A
//! client that sends this value back gets an answer of a database that has the change: of a standby, or else of the primary.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};

use super::event::Position;
use crate::context::READ_AFTER;
use crate::http::cursor;
use crate::http::page::Place;

/// What the values are called in their digest.
const VALUES: &str = "read after";

/// The changes that a read must see: all up to a position of the service's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadAfter(Option<Position>);

impl ReadAfter {
    /// All changes. What decides a write reads so.
    pub const NOW: Self = Self(Some(Position { epoch: i64::MAX, xid: i64::MAX, position: i64::MAX }));
    /// A position in no log. No standby has it.
    const UNKNOWN: Self = Self(Some(Position { epoch: -1, xid: 0, position: 0 }));

    /// Reads the header. Its values are not secret: who makes one up reads from the primary at most.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(READ_AFTER).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::default(),
            (Some(value), None) => decode(value).map_or(Self::UNKNOWN, Self::from),
            (Some(_), Some(_)) => Self::UNKNOWN,
        }
    }

    /// The epoch and the number of the newest transaction that the read must see. `None` if it may be older than any.
    pub fn transaction(self) -> Option<(i64, i64)> {
        self.0.map(|position| (position.epoch, position.xid))
    }
}

impl From<Position> for ReadAfter {
    fn from(position: Position) -> Self {
        Self(Some(position))
    }
}

impl<S: Sync> FromRequestParts<S> for ReadAfter {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers))
    }
}

impl IntoResponseParts for ReadAfter {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        let value = self.0.and_then(|position| HeaderValue::from_str(&cursor::encode(VALUES, &position.to_bytes())).ok());
        response.headers_mut().extend(value.map(|value| (READ_AFTER, value)));
        Ok(response)
    }
}

fn decode(value: &HeaderValue) -> Option<Position> {
    let place = cursor::decode(VALUES, value.to_str().ok()?)?;
    Position::from_bytes(&place)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn read(values: &[HeaderValue]) -> ReadAfter {
        ReadAfter::read(&values.iter().map(|value| (READ_AFTER, value.clone())).collect())
    }

    #[test]
    fn what_an_answer_says_is_read_back_and_anything_else_is_no_position() {
        let position = Position { epoch: 2, xid: 700, position: 9 };
        let response = (ReadAfter::from(position), ()).into_response();
        let value = response.headers()[READ_AFTER].clone();
        assert_eq!(read(std::slice::from_ref(&value)).transaction(), Some((2, 700)));
        assert_eq!(read(&[]).transaction(), None);
        let cursor = HeaderValue::from_str(&cursor::encode("feed/orders", &position.to_bytes())).expect("a value");
        let latin = HeaderValue::from_bytes(b"\xe9").expect("a value");
        for unknown in [HeaderValue::from_static("now"), HeaderValue::from_static(""), latin, cursor] {
            assert_eq!(read(&[unknown]), ReadAfter::UNKNOWN);
        }
        assert_eq!(read(&[value.clone(), value]), ReadAfter::UNKNOWN);
        assert!((ReadAfter::default(), ()).into_response().headers().is_empty());
    }
}
