//! Events by a Kafka broker instead of the HTTP feed: a relay takes a service's own log there, and a consumer takes the
//! events of others from there. Handlers know nothing of it; they append to the log.
//!
//! Compiled with the feature `kafka`, but for the variable's type, which is always there to say what is wrong with a value.

#[cfg(feature = "kafka")]
mod connection;
#[cfg(feature = "kafka")]
mod consumer;
#[cfg(feature = "kafka")]
mod relay;

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "kafka")]
pub use consumer::consume;
#[cfg(feature = "kafka")]
pub use relay::relay;

/// Where a Kafka cluster is reached: `host:port` of one of its brokers, or of several with commas between them.
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
            Err("must be host:port, or several with commas between them, such as 127.0.0.1:9092")
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
