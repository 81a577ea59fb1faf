//! Relay and consumer against a broker: librdkafka's own, which speaks the protocol inside this process, or the real one
//! that the variable `TEST_KAFKA_BROKERS` names.

mod cluster;
mod consuming;
mod fakes;
mod relaying;
