//! What every service needs that is not its domain: the "microservice chassis". It knows HTTP, configuration and
//! telemetry, and neither the database nor a noun of any domain.

#![warn(missing_docs)]

pub mod broker;
pub mod config;
pub mod events;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod remote;
pub mod telemetry;
