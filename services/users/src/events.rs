//! What the service announces.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::User;

/// What names this service's events: `source` of a CloudEvent.
pub const SOURCE: &str = "/users";

/// What can happen to a user.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Came into being.
    Registered,
    /// Another email address or name.
    Changed,
    /// May not order any more.
    Deactivated,
    /// May order again.
    Reactivated,
}

impl Kind {
    /// The CloudEvents type.
    fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "user.registered.v1",
            Self::Changed => "user.changed.v1",
            Self::Deactivated => "user.deactivated.v1",
            Self::Reactivated => "user.reactivated.v1",
        }
    }
}

/// An event about to be appended to the log, in the statement that changes the user.
#[derive(Debug)]
pub struct Event {
    /// The CloudEvents type.
    pub r#type: &'static str,
    /// The user after the event.
    pub data: Json<Box<RawValue>>,
}

/// The user after an event, as version 1 of the events' schema publishes it. Others depend on it: fields are added, never
/// taken away or given another meaning.
#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    email: &'a str,
    name: &'a str,
    status: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

/// The event that made `user` what it is.
pub fn announce(kind: Kind, user: &User) -> Event {
    let User { id, email, name, status, created_at, updated_at, version } = user;
    let data = Data {
        id: *id,
        email,
        name,
        status: status.as_str(),
        created_at: *created_at,
        updated_at: *updated_at,
        version: *version,
    };
    let data = serde_json::value::to_raw_value(&data).expect("strings and numbers are JSON");
    Event { r#type: kind.as_str(), data: Json(data) }
}
