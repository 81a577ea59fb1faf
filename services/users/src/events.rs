//! The events that the service announces.

use std::convert::Infallible;

pub use chassis::events::Announcement;
use chassis::events::{self, Broker};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared_db::alone;
use uuid::Uuid;

use crate::App;
use crate::domain::User;

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
            Self::Registered => "user.registered.v1",
            Self::Changed => "user.changed.v1",
            Self::Deactivated => "user.deactivated.v1",
            Self::Reactivated => "user.reactivated.v1",
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
    created_at: DateTime<Utc>,
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

/// Publishes the log by `broker`, for ever, in one process of the service at a time.
pub async fn publish(app: App, broker: impl Broker) -> Infallible {
    alone(&app.database, "users: relay", || events::publish(&app, &broker)).await
}
