//! What a call to another service takes along from the request that it is made for.

use axum::http::{HeaderMap, HeaderValue};

use crate::request::{REQUEST_ID, TRACEPARENT};

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

    /// The headers to send along; none outside of a request.
    pub(crate) fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        // Outside of a request there is nothing to take along.
        let _ = CURRENT.try_with(|context| {
            headers.insert(REQUEST_ID, context.request_id.clone());
            if let Some(traceparent) = &context.traceparent {
                headers.insert(TRACEPARENT, traceparent.clone());
            }
        });
        headers
    }
}
