//! Calls to another service, with a deadline, a bounded retry and a circuit breaker, by HTTP or gRPC.

pub mod breaker;
mod comparisons;
mod credentials;
mod grpc;
mod guard;
mod http;
mod link;
mod token;
mod token_options;
mod url;

pub use crate::context::in_this_context;
pub use comparisons::Comparisons;
pub use grpc::Grpc;
pub use guard::{Limits, Remote, RemoteError, gauge_breaker};
pub use http::{Answer, Http};
pub use token::ServiceToken;
pub use token_options::TokenOptions;
pub use url::BaseUrl;
