//! The seam between events and the brokers that can carry them.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use super::consumer::feed::Feed;
use super::consumer::inbox::Inbox;
use super::outbox::Outbox;
use super::wakeups::Wakeups;

/// A broker that carries events between services. The services' topics have the services' names.
pub trait Broker: Clone + Send + Sync + 'static {
    /// The name of this kind of broker in traces.
    fn system(&self) -> &'static str;

    /// The name of the cursor up to which a service's own log is published: each kind of broker has its own.
    fn cursor(&self) -> &'static str {
        "own log, to the broker"
    }

    /// Publishes the events of `outbox` to `topic`, as `source`, for ever.
    fn publish<O: Outbox>(
        &self,
        topic: &'static str,
        source: &'static str,
        outbox: &O,
        wakeups: &Wakeups,
    ) -> impl Future<Output = Infallible> + Send;

    /// Hands the inbox all events of `topic` for ever, as a member of the consumer group `group`. The inbox keeps the place
    /// in the topic. Without a place it is filled first, and then gets every event that the topic still has.
    fn consume<I: Inbox>(&self, group: &str, topic: &'static str, inbox: &I) -> impl Future<Output = Infallible> + Send;
}

/// The broker of a build without one. It has no values.
#[derive(Debug, Clone, Copy)]
pub enum NoBroker {}

impl Broker for NoBroker {
    fn system(&self) -> &'static str {
        match *self {}
    }

    async fn publish<O: Outbox>(&self, _: &'static str, _: &'static str, _: &O, _: &Wakeups) -> Infallible {
        match *self {}
    }

    async fn consume<I: Inbox>(&self, _: &str, _: &'static str, _: &I) -> Infallible {
        match *self {}
    }
}

/// One of two kinds of brokers.
#[derive(Debug, Clone)]
pub enum Either<A, B> {
    /// The first kind.
    First(A),
    /// The second kind.
    Second(B),
}

impl<A: Broker, B: Broker> Broker for Either<A, B> {
    fn system(&self) -> &'static str {
        match self {
            Self::First(broker) => broker.system(),
            Self::Second(broker) => broker.system(),
        }
    }

    fn cursor(&self) -> &'static str {
        match self {
            Self::First(broker) => broker.cursor(),
            Self::Second(broker) => broker.cursor(),
        }
    }

    async fn publish<O: Outbox>(
        &self,
        topic: &'static str,
        source: &'static str,
        outbox: &O,
        wakeups: &Wakeups,
    ) -> Infallible {
        match self {
            Self::First(broker) => broker.publish(topic, source, outbox, wakeups).await,
            Self::Second(broker) => broker.publish(topic, source, outbox, wakeups).await,
        }
    }

    async fn consume<I: Inbox>(&self, group: &str, topic: &'static str, inbox: &I) -> Infallible {
        match self {
            Self::First(broker) => broker.consume(group, topic, inbox).await,
            Self::Second(broker) => broker.consume(group, topic, inbox).await,
        }
    }
}

/// What carries another service's events to this one.
#[derive(Debug, Clone)]
pub enum Transport<B> {
    /// The other service's HTTP feed.
    Feed,
    /// A broker.
    Broker(B),
}

impl<B: Broker> Transport<B> {
    /// Its name in traces.
    pub(super) fn system(&self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Broker(broker) => broker.system(),
        }
    }

    /// Hands the inbox all events of the service that `feed` belongs to, for ever. `group` names the reader to a broker.
    pub async fn follow<I: Inbox>(&self, feed: &Feed, group: &str, inbox: &I) -> Infallible {
        match self {
            Self::Feed => feed.follow(inbox).await,
            Self::Broker(broker) => broker.consume(group, feed.service(), inbox).await,
        }
    }
}

/// The address of a Kafka cluster: `host:port` of one of its brokers, or of several, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brokers(String);

impl FromStr for Brokers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let is_broker = |broker: &str| {
            broker
                .rsplit_once(':')
                .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        if text.split(',').all(is_broker) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be host:port, or several separated by commas, such as 127.0.0.1:9092")
        }
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => plain(address, ":."),
        None => plain(text, "-._"),
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        for right in ["127.0.0.1:9092", "kafka-1.internal:9092,kafka-2.internal:9093", "[::1]:9092"] {
            assert_eq!(right.parse::<Brokers>().map(|brokers| brokers.to_string()), Ok(right.to_owned()));
        }
        for wrong in
            ["", "kafka", "kafka:", ":9092", "kafka:0", "kafka:70000", "a:1,", "a:1, b:2", "kafka://a:1", "::1:9092"]
        {
            let error = wrong.parse::<Brokers>().expect_err(wrong);
            assert!(error.starts_with("must be host:port"), "{error}");
        }
    }
}
