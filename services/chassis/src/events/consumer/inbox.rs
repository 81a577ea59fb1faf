//! An event of another service, as received, and the trait of what a service does with it.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

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
    /// What it is about, as it was after the event: JSON, unless the sender made a mistake.
    #[serde(default, deserialize_with = "read_data")]
    pub data: String,
}

impl Received {
    /// Reads the data.
    ///
    /// # Errors
    /// If the data does not fit `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// What a service does with another one's events.
///
/// An event arrives at least once. Events of one subject arrive in order, except for repetitions. So every effect must be
/// safe against a repeated or an older event.
pub trait Inbox: Send + Sync {
    /// Why a batch could not be applied now. A later try may succeed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Where to go on in the feed; `None` if nothing has been read yet.
    fn cursor(&self) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Applies the events in their order, and then stores `cursor`, if there is one. Unknown types are skipped; an event
    /// that cannot be read is parked.
    fn apply(&self, events: &[Received], cursor: Option<&str>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Replaces NUL, which Postgres cannot store. An event that cannot even be parked would block all events behind it.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Counts applied events, and sets the gauge of the lag to the age of the last one. Without events, the lag is zero.
pub fn observe(service: &'static str, applied: &[Received]) {
    metrics::counter!("events_consumed_total", "of" => service).increment(applied.len() as u64);
    let lag = applied
        .last()
        .and_then(|event| event.time)
        .map_or(0.0, |time| (Utc::now() - time).to_std().unwrap_or_default().as_secs_f64());
    metrics::gauge!("event_lag_seconds", "of" => service).set(lag);
}

fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| storable(&text))
}

fn read_data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let data = Option::<&RawValue>::deserialize(deserializer)?;
    Ok(data.map(|data| data.get().to_owned()).unwrap_or_default())
}
