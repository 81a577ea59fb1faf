//! What every service needs that is not its domain: the "microservice chassis". It knows HTTP, configuration and
//! telemetry, and neither the database nor a noun of any domain.

pub mod body;
pub mod broker;
pub mod conditional;
pub mod config;
pub mod consumer;
pub mod cursor;
pub mod events;
pub mod grpc;
pub mod json;
pub mod metrics;
pub mod operations;
pub mod page;
pub mod path;
pub mod problem;
pub mod progress;
pub mod query;
pub mod remote;
pub mod request;
pub mod router;
pub mod serve;
pub mod telemetry;
pub mod text;
