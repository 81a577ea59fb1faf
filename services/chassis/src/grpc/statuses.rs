//! Two statuses that tonic names otherwise: a call whose deadline has passed, and a message that is too large.
//! <https://grpc.io/docs/guides/status-codes/>.

use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Request, Response};
use futures_util::FutureExt;
use futures_util::future::Either;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::calls::{self, Calls};
use crate::http::request::DEADLINE;
use crate::metrics::CALL_DURATION;

/// The answer comes this long before the client's own clock ends the call. tonic's has CANCELLED at that moment.
const EARLIER: Duration = Duration::from_millis(5);
/// No work is begun for less.
const LEAST: Duration = Duration::from_millis(1);

/// Adds them to a server.
#[derive(Debug, Clone)]
pub(super) struct Statuses(pub Calls);

impl<S> Layer<S> for Statuses {
    type Service = WithStatuses<S>;

    fn layer(&self, inner: S) -> WithStatuses<S> {
        WithStatuses { inner, calls: self.0.clone() }
    }
}

/// A server with the layer around it.
#[derive(Debug, Clone)]
pub(super) struct WithStatuses<S> {
    inner: S,
    calls: Calls,
}

impl<S, B> Service<Request<B>> for WithStatuses<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let begun = Instant::now();
        let limit = timeout(request.headers()).unwrap_or(DEADLINE).min(DEADLINE);
        let limit = limit - EARLIER.min(limit / 2);
        let name = calls::Name::default();
        let answer =
            if limit < LEAST { Either::Left(ready(None)) } else { Either::Right(self.inner.call(request).map(Some)) };
        let calls = self.calls.clone();
        Box::pin(async move {
            match tokio::time::timeout(limit, calls.within(name.clone(), answer)).await {
                Ok(Some(answer)) => answer.map(rename),
                Ok(None) => Ok(exceeded()),
                Err(_elapsed) => {
                    let code = format!("{:?}", Code::DeadlineExceeded);
                    let labels = [("rpc_method", name.read().to_owned()), ("rpc_response_status_code", code)];
                    metrics::histogram!(CALL_DURATION, &labels).record(begun.elapsed());
                    Ok(exceeded())
                }
            }
        })
    }
}

fn exceeded() -> Response<Body> {
    Status::deadline_exceeded("the call's deadline has passed").into_http()
}

/// tonic answers a message above the limit with `OUT_OF_RANGE`, which no method here uses.
fn rename(mut answer: Response<Body>) -> Response<Body> {
    if let Some(status) = answer.headers_mut().get_mut(Status::GRPC_STATUS)
        && status.as_bytes() == (Code::OutOfRange as i32).to_string().as_bytes()
    {
        *status = HeaderValue::from(Code::ResourceExhausted as i32);
    }
    answer
}

/// The time that `grpc-timeout` leaves: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = value.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        let read = |text| {
            timeout(&HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), HeaderValue::from_static(text))]))
        };
        for (text, expected) in [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("99999999m", 99_999_999), ("1000u", 1)] {
            assert_eq!(read(text), Some(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1.5S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
