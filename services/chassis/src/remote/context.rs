//! What a call to another service takes along from the request that it is made for.

use axum::http::{HeaderMap, HeaderValue};
use tracing::Instrument;

use crate::http::request::{REQUEST_ID, TRACEPARENT};

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
    pub(crate) fn new(request_id: HeaderValue, traceparent: Option<HeaderValue>) -> Self {
        Self { request_id, traceparent }
    }

    /// Runs `work` for a request.
    pub(crate) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// That of the request that this task answers, if it does.
    fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The headers to send along; none outside of a request.
    pub(crate) fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(Self { request_id, traceparent }) = Self::current() {
            headers.insert(REQUEST_ID, request_id);
            headers.extend(traceparent.map(|traceparent| (TRACEPARENT, traceparent)));
        }
        headers
    }
}

/// `work` for another task, in the context and the span of the request that this task answers.
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
