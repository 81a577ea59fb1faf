//! An event of another service, as received, and the trait of what a service does with it.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The content type of an event in structured mode, without its parameters.
const STRUCTURED: &str = "application/cloudevents+json";

/// An event of another service, as received.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Received {
    /// `<id of what it is about>/<version of that>`. A message without an id gets its place in the topic instead.
    #[serde(deserialize_with = "read_text")]
    pub id: String,
    /// What happened; empty if the message has no type.
    #[serde(deserialize_with = "read_text")]
    pub r#type: String,
    /// When it happened.
    pub time: Option<DateTime<Utc>>,
    /// The `traceparent` of the request that caused it.
    #[serde(default, deserialize_with = "read_traceparent")]
    pub traceparent: Option<String>,
    /// What it is about, as it was after the event: JSON, unless the sender made a mistake.
    #[serde(default, deserialize_with = "read_data")]
    pub data: String,
}

impl Received {
    /// Reads a message of a broker in structured mode: its payload is the whole event. `None` of a message that is in binary
    /// mode, or that cannot be read.
    pub fn structured(content_type: &str, payload: &[u8]) -> Option<Self> {
        let mode = content_type.split(';').next().unwrap_or_default().trim();
        if mode.eq_ignore_ascii_case(STRUCTURED) { serde_json::from_slice(payload).ok() } else { None }
    }

    /// Reads the data.
    ///
    /// # Errors
    /// If the data does not fit `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// A place in the events of a service, stored together with the effects of the events before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<'a> {
    /// The name of what was read: each transport has its own.
    pub log: &'a str,
    /// The place, in the transport's own notation.
    pub value: &'a str,
}

/// What a service does with another one's events.
///
/// An event arrives at least once. Events of one subject arrive in order, except for repetitions. So every effect must be
/// safe against a repeated or an older event.
pub trait Inbox: Send + Sync {
    /// Why a batch could not be applied now. A later try may succeed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The place stored for `log`; `None` if nothing of it has been read yet.
    fn cursor(&self, log: &str) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Applies the events in their order, and then stores `cursor`, if there is one. Unknown types are skipped; an event
    /// that cannot be read is parked.
    fn apply(&self, events: &[Received], cursor: Option<Cursor<'_>>)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Brings this inbox up to date without events. A transport calls it before it reads a log for the first time, and by
    /// [`Follower::refill`](super::lag::Follower::refill) when events are gone that it has not read.
    fn refill(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Replaces NUL, which Postgres cannot store. An event that cannot even be parked would block all events behind it.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| storable(&text))
}

/// Whatever else stands there is no reason to park an event.
fn read_traceparent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<&RawValue>::deserialize(deserializer)?;
    Ok(text.and_then(|text| serde_json::from_str(text.get()).ok()))
}

fn read_data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let data = Option::<&RawValue>::deserialize(deserializer)?;
    Ok(data.map(|data| data.get().to_owned()).unwrap_or_default())
}
