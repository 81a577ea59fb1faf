//! Relay and consumer against a broker: librdkafka's mock cluster inside this process, or the real one that
//! `TEST_KAFKA_BROKERS` names.

mod cluster;
mod consuming;
mod fakes;
mod relaying;
