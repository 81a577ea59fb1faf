//! Calls to another service, with a deadline, a bounded retry and a circuit breaker, by HTTP or gRPC.

pub mod breaker;
mod comparisons;
mod grpc;
mod guard;
mod http;
mod url;

pub use crate::context::in_this_context;
pub use comparisons::Comparisons;
pub use grpc::Grpc;
pub use guard::{Limits, Remote, RemoteError, gauge_breaker};
pub use http::{Answer, Http};
pub use url::BaseUrl;
