//! The ids of a request: read from its headers, kept while a task answers it, sent along with calls to other services.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;
use uuid::Uuid;

/// Carries the request's id, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Carries the trace of a request: <https://www.w3.org/TR/trace-context/>.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest id accepted from a client, in bytes.
const MAX_REQUEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The ids of the request that this task answers.
#[derive(Debug, Clone)]
pub(crate) struct CallContext {
    request_id: HeaderValue,
    traceparent: Option<HeaderValue>,
}

impl CallContext {
    /// Reads the ids from a request's headers. A missing or unsafe request id is replaced by a new one.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let traceparent = headers.get(TRACEPARENT).filter(|value| trace_id(value).is_some()).cloned();
        Self { request_id: request_id(headers), traceparent }
    }

    /// The request's id, for the answer.
    pub(crate) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The trace id, for the span.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_ref().and_then(trace_id)
    }

    /// Runs `work` for a request.
    pub(crate) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// The headers to send along with a call. Outside of a request there are none.
    pub(crate) fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(Self { request_id, traceparent }) = Self::current() {
            headers.insert(REQUEST_ID, request_id);
            headers.extend(traceparent.map(|traceparent| (TRACEPARENT, traceparent)));
        }
        headers
    }

    fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }
}

/// Prepares `work` for another task: it keeps the ids and the span of the request that this task answers.
pub fn in_this_context<F: Future<Output = ()>>(work: F) -> impl Future<Output = ()> {
    let context = CallContext::current();
    async move {
        match context {
            Some(context) => context.scope(work).await,
            None => work.await,
        }
    }
    .in_current_span()
}

/// The client's id if it is short and harmless in a log, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    match headers.get(REQUEST_ID) {
        Some(id) if (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(harmless) => id.clone(),
        _ => {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            let text = Uuid::now_v7().as_hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        }
    }
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    let text = traceparent.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && nonzero(trace)
        && hex(parent, 16)
        && nonzero(parent)
        && hex(flags, 2)
        // Only later versions may have more parts.
        && (version != "00" || parts.next().is_none());
    valid.then_some(trace)
}
