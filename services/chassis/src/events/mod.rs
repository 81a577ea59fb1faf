//! Events between services: a service's own log, the HTTP feed or a broker that carries it, and the consumer of another
//! service's events.

pub mod archive;
mod broker;
mod config;
pub mod consumer;
mod event;
mod kafka;
mod long_poll;
mod loops;
mod outbox;
pub mod progress;
mod rabbitmq;
mod read_after;
pub(crate) mod relay_lag;
mod retry;
mod routes;
mod statements;
mod store;
mod versions;
mod wakeups;

pub use broker::{Broker, Brokers, Either, NoBroker, Transport};
pub use config::{Events, EventsConfig, Resolved, Via};
pub use event::{Announcement, CloudEvent, LoggedEvent, Position};
pub use kafka::{KafkaConfig, KafkaSettings, TopicCommand};
pub use loops::{publish, watch};
pub use outbox::{Outbox, OutboxError, OwnLog};
pub use rabbitmq::{RabbitmqSettings, RabbitmqUrl};
pub use read_after::ReadAfter;
pub use relay_lag::RelayLag;
pub use retry::{Pauses, Trouble};
pub use routes::{Gone, routes};
pub use store::{EventStore, FeedEvent, PAGE_BYTES};
pub use versions::{Convert, EventType, Version, newest};
pub use wakeups::Wakeups;
