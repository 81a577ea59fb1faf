//! Another service by gRPC.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::guard::{BoxError, Limits, Remote, RemoteError};
use super::token::ServiceToken;
use super::url::BaseUrl;
use crate::context::{CallContext, TRACEPARENT};
use crate::tls::Protocol;
use crate::traces::ClientSpan;

/// How often an idle connection is pinged, and how long the answer to a ping may take.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Another service, called by gRPC. Clones share the connection, circuit breaker and budget.
#[derive(Debug, Clone)]
pub struct Grpc {
    remote: Remote,
    address: Arc<str>,
    channel: Channel,
    token: ServiceToken,
}

impl Grpc {
    /// The service called `name` in metrics and logs. Its connection is opened by the first call.
    pub fn new(name: &'static str, base: &BaseUrl, limits: Limits) -> Self {
        let endpoint = Endpoint::from_shared(base.as_str().to_owned()).expect("a base URL is a URI");
        let channel = endpoint
            .connect_timeout(limits.connect)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .keep_alive_timeout(SIGN_OF_LIFE)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(base.connector(Protocol::Http2, limits.connect));
        let (remote, address) = (Remote::new(name, limits), base.as_str().into());
        Self { remote, address, channel, token: ServiceToken::default() }
    }

    /// Shows this token.
    #[must_use]
    pub fn showing(self, token: ServiceToken) -> Self {
        Self { token, ..self }
    }

    /// The guard of these calls.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Calls `method` of the other service, as `package.Service/Method`, with a few retries. `call` gets an empty request
    /// with the deadline and the ids; it adds the message with `map`. The inner error is an answer, such as
    /// [`Code::NotFound`], not a failure of the other service.
    ///
    /// # Errors
    /// [`RemoteError`], within the limits.
    pub async fn call<T, F>(
        &self,
        method: &'static str,
        call: impl Fn(Channel, Request<()>) -> F,
    ) -> Result<Result<T, Box<Status>>, RemoteError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let call = &call;
        let attempt = |limit: Instant| async move {
            let mut span = ClientSpan::grpc(&self.address, method);
            let mut headers = CallContext::headers();
            if let Some(span) = &span {
                headers.insert(TRACEPARENT, span.traceparent());
            }
            headers.extend(self.token.header().await.map(|token| (header::AUTHORIZATION, token)));
            let metadata = MetadataMap::from_headers(headers);
            let mut request = Request::from_parts(metadata, tonic::Extensions::default(), ());
            request.set_timeout(limit.saturating_duration_since(Instant::now()));
            let answer = call(self.channel.clone(), request).await;
            if let Some(span) = &mut span {
                span.returned(answer.as_ref().err().map_or(Code::Ok, Status::code));
            }
            match answer {
                Ok(answer) => Ok(Ok(answer.into_inner())),
                Err(status) => self.judge(status),
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
        if status.code() == Code::Unauthenticated {
            self.token.note_refused();
        }
        match status.code() {
            Code::DeadlineExceeded => Err(RemoteError::Late(name)),
            // A status with a source was made on this side: the connection failed.
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
                if std::error::Error::source(&status).is_some() =>
            {
                Err(RemoteError::Unreachable(name, Box::new(status)))
            }
            Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::PermissionDenied => Ok(Err(Box::new(status))),
            // The others report a failure, or come from a gateway in the service's place.
            _ => Err(RemoteError::Status(name, describe(&status))),
        }
    }
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
