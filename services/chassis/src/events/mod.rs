//! Events between services: a service's own log, the HTTP feed or a broker that carries it, and the consumer of another
//! service's events.

mod broker;
mod config;
pub mod consumer;
mod event;
mod loops;
mod outbox;
pub mod progress;
mod retry;
mod routes;
mod statements;
mod store;
mod wakeups;

pub use broker::{Broker, Brokers, NoBroker, Transport};
pub use config::{Events, EventsConfig, Via};
pub use event::{Announcement, CloudEvent, LoggedEvent, Position};
pub use loops::{publish, watch};
pub use outbox::{Outbox, OutboxError};
pub use retry::{Pauses, Trouble};
pub use routes::routes;
pub use store::EventStore;
pub use wakeups::Wakeups;
