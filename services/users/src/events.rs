//! The events that the service announces.

use std::convert::Infallible;

pub use chassis::events::Announcement;
use chassis::events::{self, Broker, EventType, Version};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared_db::alone;
use uuid::Uuid;

use crate::App;
use crate::domain::User;

const REGISTERED: &str = "user.registered.v1";
const CHANGED: &str = "user.changed.v1";
const DEACTIVATED: &str = "user.deactivated.v1";
const REACTIVATED: &str = "user.reactivated.v1";

/// What users publishes. The contract is beside it in `contract/`.
pub const TYPES: &[EventType] = &[
    &[Version::first(REGISTERED)],
    &[Version::first(CHANGED)],
    &[Version::first(DEACTIVATED)],
    &[Version::first(REACTIVATED)],
];

/// What can happen to a user.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// The user was created.
    Registered,
    /// The user has another email address or name.
    Changed,
    /// The user may not order any more.
    Deactivated,
    /// The user may order again.
    Reactivated,
}

impl Event {
    /// The CloudEvents type.
    fn as_str(self) -> &'static str {
        match self {
            Self::Registered => REGISTERED,
            Self::Changed => CHANGED,
            Self::Deactivated => DEACTIVATED,
            Self::Reactivated => REACTIVATED,
        }
    }
}

/// The user after an event, as version 1 of the events' schema publishes it. Other services depend on it: fields may be
/// added, but never removed or given another meaning.
#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    email: &'a str,
    name: &'a str,
    status: &'static str,
    #[serde(serialize_with = "chassis::moment::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "chassis::moment::serialize")]
    updated_at: DateTime<Utc>,
    version: i64,
}

/// The announcement of `event`, which made `user` what it is.
pub fn announce(event: Event, user: &User) -> Announcement {
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
    Announcement::new(event.as_str(), &data)
}

/// Publishes the log by each of the brokers, for ever, in one process of the service at a time.
pub async fn publish(app: App, brokers: Vec<impl Broker>) -> Infallible {
    alone(&app.database, "users: relay", || events::publish(&app, &brokers)).await
}
