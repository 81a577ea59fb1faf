//! Brokers that carry events between services, beside the HTTP feed. Handlers do not know them: they append to the log.
//!
//! This is the only crate that links librdkafka, and the only one of the services that links lapin.

#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
