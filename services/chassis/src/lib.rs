//! The parts that every service needs and that are not its domain, a "microservice chassis": HTTP, gRPC, events, calls to
//! other services, configuration, telemetry. It depends on no database and knows no noun of any domain.

pub mod config;
mod context;
pub mod error;
pub mod events;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod remote;
pub mod telemetry;
