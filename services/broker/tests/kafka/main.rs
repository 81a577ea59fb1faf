//! Relay and consumer against a broker: librdkafka's mock cluster inside this process, or the real one that
//! `TEST_KAFKA_BROKERS` names.

mod brokers;
mod cluster;
mod consuming;
mod lags;
mod logged;
mod losses;
mod others;
mod records;
mod refusals;
#[path = "../suite/mod.rs"]
mod suite;
mod with_the_mock;

suite! { cluster::Cluster }
