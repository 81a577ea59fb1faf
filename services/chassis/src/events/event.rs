//! An event on its way: announced by a service, stored in its log, published to others.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::page::Place;

/// An event about to be appended to the log, in the statement that changes what it is about.
#[derive(Debug)]
pub struct Announcement {
    /// The CloudEvents type.
    pub r#type: &'static str,
    /// The state after the event, as published.
    pub data: Box<RawValue>,
}

impl Announcement {
    /// An event of this type that carries `data`.
    pub fn new(r#type: &'static str, data: &impl Serialize) -> Self {
        Self { r#type, data: serde_json::value::to_raw_value(data).expect("event data is JSON") }
    }
}

/// An event stored in a service's log.
#[derive(Debug)]
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
}

impl LoggedEvent {
    /// The event as `source` publishes it.
    pub fn publish(self, source: &'static str) -> CloudEvent {
        CloudEvent {
            specversion: "1.0",
            id: format!("{}/{}", self.subject, self.version),
            source,
            r#type: self.r#type,
            subject: self.subject.to_string(),
            time: self.occurred_at,
            datacontenttype: "application/json",
            data: self.data,
        }
    }
}

/// A published event: a CloudEvent, <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: &'static str,
    /// `<id of what it is about>/<version of that>`; unique within `source`.
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
    pub time: DateTime<Utc>,
    /// `application/json`.
    pub datacontenttype: &'static str,
    /// What it is about, as it was after the event.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}

/// A position in an event log. The column comments of the log's table explain the three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Life of the log.
    pub epoch: i64,
    /// Transaction that appended the event.
    pub xid: i64,
    /// Place within the transaction.
    pub position: i64,
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
