//! The ids of a request: read from its headers, kept while a task answers it, sent along with calls to other services.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, SpanContext};
use tracing::Instrument;
use uuid::Uuid;

use crate::traces::traceparent;

/// Carries the request's id, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Carries the trace of a request: <https://www.w3.org/TR/trace-context/>.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What a read must see, in requests; where a change is, in answers: [`crate::events::ReadAfter`].
pub(crate) const READ_AFTER: HeaderName = HeaderName::from_static("read-after");
/// What the tracers on the way have to say to each other.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest id accepted from a client, in bytes.
const MAX_REQUEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The ids of the request that this task answers.
#[derive(Debug, Clone)]
pub(crate) struct CallContext {
    request_id: HeaderValue,
    /// As the request has it; with traces, of the span that answers it.
    traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
}

impl CallContext {
    /// Reads the ids from a request's headers. A missing or unsafe request id is replaced by a new one.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let traceparent = headers.get(TRACEPARENT).filter(|value| trace_id(value).is_some()).cloned();
        let tracestate = traceparent.as_ref().and_then(|_| headers.get(TRACESTATE)).cloned();
        Self { request_id: request_id(headers), traceparent, tracestate }
    }

    /// The context of work that no request asks for.
    pub(crate) fn of(span: &SpanContext) -> Self {
        let traceparent = Some(traceparent::write(span));
        Self { request_id: request_id(&HeaderMap::new()), traceparent, tracestate: None }
    }

    /// The request's id, for the answer.
    pub(crate) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The span that has caused the request.
    pub(crate) fn caller(&self) -> Option<SpanContext> {
        traceparent::read(self.traceparent.as_ref()?.to_str().ok()?)
    }

    /// From now on, `span` causes what this request causes.
    pub(crate) fn enter(&mut self, span: &SpanContext) {
        // A caller that does not trace has said so already.
        let is_known = !span.is_sampled() && self.caller().is_some_and(|caller| !caller.is_sampled());
        if !is_known {
            self.traceparent = Some(traceparent::write(span));
        }
    }

    /// The trace id, for the log.
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
        if let Some(Self { request_id, traceparent, tracestate }) = Self::current() {
            headers.insert(REQUEST_ID, request_id);
            headers.extend(traceparent.map(|traceparent| (TRACEPARENT, traceparent)));
            headers.extend(tracestate.map(|tracestate| (TRACESTATE, tracestate)));
        }
        headers
    }

    /// The `traceparent` for an event. An event of a request that nobody traces has none.
    pub(crate) fn traceparent_of_event() -> Option<String> {
        let caller = CURRENT.try_with(|current| current.caller()).ok()?;
        let header = traceparent::write(&caller.filter(SpanContext::is_sampled)?);
        header.to_str().ok().map(str::to_owned)
    }

    fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }
}

/// Prepares `work` for another task: it keeps the ids and the span of the request that this task answers.
pub fn in_this_context<F: Future<Output = ()>>(work: F) -> impl Future<Output = ()> {
    let (context, traced) = (CallContext::current(), Context::current());
    async move {
        match context {
            Some(context) => context.scope(work).await,
            None => work.await,
        }
    }
    .with_context(traced)
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

fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    let [trace_id, ..] = traceparent::split(traceparent.to_str().ok()?)?;
    Some(trace_id)
}
