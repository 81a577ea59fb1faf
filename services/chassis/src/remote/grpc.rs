//! Another service by gRPC.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::guard::{BoxError, Limits, Remote, RemoteError};
use super::url::BaseUrl;
use crate::context::CallContext;

/// How often an idle connection is pinged, and how long the answer to a ping may take.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Another service, called by gRPC. Clones share the connection, circuit breaker and budget.
#[derive(Debug, Clone)]
pub struct Grpc {
    remote: Remote,
    channel: Channel,
}

impl Grpc {
    /// The service called `name` in metrics and logs. Its connection is opened by the first call.
    pub fn new(name: &'static str, base: &BaseUrl, limits: Limits) -> Self {
        let endpoint = Endpoint::from_shared(base.as_str().to_owned()).expect("a base URL is a URI");
        let channel = endpoint
            .connect_timeout(limits.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .keep_alive_timeout(SIGN_OF_LIFE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Self { remote: Remote::new(name, limits), channel }
    }

    /// The guard of these calls.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Calls the other service, with a few retries. `call` gets an empty request with the deadline and the ids; it adds the
    /// message with `map`. The inner error is an answer, such as [`Code::NotFound`], not a failure of the other service.
    ///
    /// # Errors
    /// [`RemoteError`], within the limits.
    pub async fn call<T, F>(&self, call: impl Fn(Channel, Request<()>) -> F) -> Result<Result<T, Box<Status>>, RemoteError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = |limit: Instant| {
            let metadata = MetadataMap::from_headers(CallContext::headers());
            let mut request = Request::from_parts(metadata, tonic::Extensions::default(), ());
            request.set_timeout(limit.saturating_duration_since(Instant::now()));
            let answer = call(self.channel.clone(), request);
            async move {
                match answer.await {
                    Ok(answer) => Ok(Ok(answer.into_inner())),
                    Err(status) => self.judge(status),
                }
            }
        };
        self.remote.call(attempt).await
    }

    /// The error for an answer that the contract does not allow here.
    pub fn unexpected(&self, status: &Status) -> RemoteError {
        RemoteError::Status(self.remote.name(), describe(status))
    }

    /// The error for a message that does not fit the contract.
    pub fn unreadable(&self, error: impl Into<BoxError>) -> RemoteError {
        RemoteError::Unreadable(self.remote.name(), error.into())
    }

    /// Separates answers from failures: <https://grpc.io/docs/guides/status-codes/>.
    fn judge<T>(&self, status: Status) -> Result<Result<T, Box<Status>>, RemoteError> {
        let name = self.remote.name();
        match status.code() {
            Code::DeadlineExceeded => Err(RemoteError::Late(name)),
            // A status with a source was made on this side: the connection failed.
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
                if std::error::Error::source(&status).is_some() =>
            {
                Err(RemoteError::Unreachable(name, Box::new(status)))
            }
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::DataLoss => Err(RemoteError::Status(name, describe(&status))),
            _ => Ok(Err(Box::new(status))),
        }
    }
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
