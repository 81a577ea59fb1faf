//! An event on its way: announced by a service, stored in its log, published to others.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::context::CallContext;
use crate::http::json;
use crate::http::page::Place;

/// An event about to be appended to the log, in the statement that changes what it is about.
#[derive(Debug)]
pub struct Announcement {
    /// The CloudEvents type.
    pub r#type: &'static str,
    /// The state after the event, as published: JSON.
    pub data: String,
    /// The subject of the token of who causes it.
    pub actor: Option<String>,
    /// The `traceparent` of the request that causes it.
    pub traceparent: Option<String>,
}

impl Announcement {
    /// An event of this type that carries `data`, caused by the request that this task answers.
    pub fn new(r#type: &'static str, data: &impl Serialize) -> Self {
        let data = String::from_utf8(json::write(data)).expect("JSON is UTF-8");
        Self { r#type, data, actor: None, traceparent: CallContext::traceparent_of_event() }
    }

    /// The event, caused by this caller.
    #[must_use]
    pub fn by(self, caller: &Caller) -> Self {
        Self { actor: caller.subject().map(str::to_owned), ..self }
    }
}

/// An event stored in a service's log.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    /// Id of what the event is about.
    pub subject: Uuid,
    /// The subject's version after the event.
    pub version: i64,
    /// The CloudEvents type.
    pub r#type: String,
    /// The state after the event, as published.
    pub data: Box<RawValue>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// The subject of the token of who caused it.
    pub actor: Option<String>,
    /// The `traceparent` of the request that caused it.
    pub traceparent: Option<String>,
}

impl LoggedEvent {
    /// The event as `source` publishes it.
    pub fn publish(self, source: &'static str) -> CloudEvent {
        // Two versions of an event are two CloudEvents, so they need two ids. The first version's stays what it always was.
        let later = split_type(&self.r#type).filter(|(_, version)| *version > 1);
        let version = later.map(|(_, version)| format!("/v{version}")).unwrap_or_default();
        CloudEvent {
            specversion: "1.0",
            id: format!("{}/{}{version}", self.subject, self.version),
            source,
            r#type: self.r#type,
            subject: self.subject.to_string(),
            time: self.occurred_at,
            datacontenttype: "application/json",
            actor: self.actor,
            traceparent: self.traceparent,
            data: self.data,
        }
    }
}

/// The name and the version of a CloudEvents type: `order.placed` and 1 of `order.placed.v1`.
pub(crate) fn split_type(r#type: &str) -> Option<(&str, u32)> {
    let (name, version) = r#type.rsplit_once(".v")?;
    Some((name, version.parse().ok()?))
}

/// A published event: a CloudEvent, <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: &'static str,
    /// `<id of what it is about>/<version of that>`, and `/v<n>` for a type of version 2 or later; unique within `source`.
    #[schema(example = "0198c0de-0000-7000-8000-000000000000/1")]
    pub id: String,
    /// The service that publishes it.
    #[schema(value_type = String, format = "uri-reference")]
    pub source: &'static str,
    /// What happened.
    #[schema(example = "thing.happened.v1")]
    pub r#type: String,
    /// Id of what it is about.
    pub subject: String,
    /// When it happened.
    #[serde(serialize_with = "crate::moment::serialize")]
    pub time: DateTime<Utc>,
    /// `application/json`.
    pub datacontenttype: &'static str,
    /// The subject of the token of who caused it. Absent without a token, and for what the service does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub actor: Option<String>,
    /// The W3C trace context of the request that caused it. Absent if that request was not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub traceparent: Option<String>,
    /// What it is about, as it was after the event.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}

/// A position in an event log. The column comments of the log's table explain the three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// Life of the log.
    pub epoch: i64,
    /// Transaction that appended the event.
    pub xid: i64,
    /// Place within the transaction.
    pub position: i64,
}

impl Position {
    /// How many bytes a position takes in a cursor.
    pub const BYTES: usize = 3 * size_of::<i64>();
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, xid, position } = self;
        write!(formatter, "{epoch}/{xid}/{position}")
    }
}

impl FromStr for Position {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self { epoch: part().parse()?, xid: part().parse()?, position: part().parse()? })
    }
}

impl Place for Position {
    fn to_bytes(&self) -> Vec<u8> {
        [self.epoch.to_be_bytes(), self.xid.to_be_bytes(), self.position.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([epoch, xid, position], []) = bytes.as_chunks() else { return None };
        let [epoch, xid, position] = [epoch, xid, position].map(|part| i64::from_be_bytes(*part));
        // Postgres has no negative transaction id.
        (xid >= 0).then_some(Self { epoch, xid, position })
    }
}
