//! The parts that every service needs and that are not its domain, a "microservice chassis": HTTP, gRPC, events, calls to
//! other services, configuration, telemetry. It depends on no database and knows no noun of any domain.

#![warn(missing_docs)]

pub mod auth;
pub mod config;
mod context;
pub mod error;
pub mod events;
pub mod grpc;
pub mod health;
pub mod healthcheck;
pub mod http;
pub mod metrics;
pub mod moment;
pub mod operators;
pub mod program;
pub mod remote;
pub mod resource;
pub mod telemetry;
pub mod throttle;
pub mod tls;
pub mod traces;
mod web;
