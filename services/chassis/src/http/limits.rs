//! Limits on clients, so that no single one can exhaust a service.

use std::time::Duration;

use clap::{Args, value_parser};

use crate::http::rate::Rate;

/// The variables of the limits.
#[derive(Debug, Clone, Args)]
pub struct Limits {
    /// the most HTTP connections; further ones are answered 503 and closed
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "10000", value_parser = value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// the most HTTP connections of one IPv4 address, or one IPv6 network of 64 bits
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", default_value = "4000", value_parser = value_parser!(u32).range(1..))]
    pub max_connections_per_address: u32,
    /// the most long polls of the feed (`wait`); further ones are answered 503
    #[arg(long, env = "MAX_LONG_POLLS", default_value = "5000", value_parser = value_parser!(u32).range(1..))]
    pub max_long_polls: u32,
    /// the most gRPC connections; further ones are closed
    #[arg(long, env = "MAX_GRPC_CONNECTIONS", default_value = "1000", value_parser = value_parser!(u32).range(1..))]
    pub max_grpc_connections: u32,
    /// the most gRPC connections of one IPv4 address, or one IPv6 network of 64 bits
    #[arg(
        long, env = "MAX_GRPC_CONNECTIONS_PER_ADDRESS", default_value = "500", value_parser = value_parser!(u32).range(1..)
    )]
    pub max_grpc_connections_per_address: u32,
    /// the most calls at once in one gRPC connection; further ones wait
    #[arg(long, env = "MAX_GRPC_STREAMS", default_value = "256", value_parser = value_parser!(u32).range(1..))]
    pub max_grpc_streams: u32,
    /// the most requests of one token's subject, or of one address without a token, such as `100/s` or `600/m`; further ones
    /// are answered 429
    #[arg(long, env = "RATE_LIMIT", value_parser = Rate::parse)]
    pub rate_limit: Option<Rate>,
    /// how long an HTTP connection is kept without a request
    #[arg(long, env = "KEEP_ALIVE", default_value = "75s", value_parser = duration)]
    pub keep_alive: Duration,
    /// how long a client may take to send a request's head, or to begin a gRPC connection
    #[arg(long, env = "HEAD_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub head_timeout: Duration,
    /// how long a client may take to send a request's body; then it is answered 408
    #[arg(long, env = "BODY_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub body_timeout: Duration,
    /// how long a client may read nothing of an answer; then its connection is closed
    #[arg(long, env = "WRITE_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 4_000,
            max_long_polls: 5_000,
            max_grpc_connections: 1_000,
            max_grpc_connections_per_address: 500,
            max_grpc_streams: 256,
            rate_limit: None,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// Reads a time such as `200ms`, `30s` or `5m`.
///
/// # Errors
/// The form it must have.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "must be a time such as 200ms, 30s or 5m".to_owned())
}
