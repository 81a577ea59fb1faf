//! Relay and consumer against a real RabbitMQ, which the tests start: the machine's `rabbitmq-server`.

mod consuming;
mod relaying;
mod secured;
mod server;
#[path = "../suite/mod.rs"]
mod suite;
mod teams;

suite! { server::RabbitMq }
