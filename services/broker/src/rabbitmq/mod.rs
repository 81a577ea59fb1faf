//! RabbitMQ: a relay publishes a service's own log to an exchange, a stream keeps the events, and a consumer reads the
//! stream of another service. Any other team binds queues of its own to the exchange.

mod connection;
mod consumer;
mod message;
mod place;
mod relay;
mod stream;

use std::convert::Infallible;

use chassis::events::consumer::Inbox;
use chassis::events::{Broker, Outbox, RabbitmqSettings, Wakeups};

/// A RabbitMQ server, or a cluster behind one name, that carries events.
#[derive(Debug, Clone)]
pub struct Server(RabbitmqSettings);

impl Server {
    /// The server that these settings name.
    ///
    /// # Errors
    /// If the URL is not one.
    pub fn new(settings: RabbitmqSettings) -> Result<Self, String> {
        connection::check(&settings).map(|()| Self(settings))
    }
}

impl Broker for Server {
    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn cursor(&self) -> &'static str {
        "own log, to RabbitMQ"
    }

    async fn publish<O: Outbox>(
        &self,
        topic: &'static str,
        source: &'static str,
        outbox: &O,
        wakeups: &Wakeups,
    ) -> Infallible {
        relay::relay(&self.0, topic, source, outbox, wakeups).await
    }

    async fn consume<I: Inbox>(&self, group: &str, topic: &'static str, inbox: &I) -> Infallible {
        consumer::consume(&self.0, group, topic, inbox).await
    }
}
