//! The span of a request or a call that this service answers, by the conventions for
//! [HTTP](https://opentelemetry.io/docs/specs/semconv/http/http-spans/) and
//! [gRPC](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/).

use axum::http::{Method, StatusCode};
use opentelemetry::trace::{FutureExt, SpanBuilder, SpanId, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use tonic::Code;

use super::{Tracing, code_name, on};
use crate::context::CallContext;
use crate::metrics::{OTHER_METHOD, known_method};

/// Routes that a machine asks all the time.
const UNTRACED: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];

/// The span of a request. Dropped before the request is answered, it says so.
pub(crate) struct ServerSpan {
    context: Context,
    is_answered: bool,
}

impl ServerSpan {
    /// The span of an HTTP request, if it is sampled. `call` carries it from now on.
    pub(crate) fn http(call: &mut CallContext, method: &Method, route: Option<&str>) -> Option<Self> {
        let tracing = on()?;
        if route.is_some_and(|route| UNTRACED.contains(&route)) {
            return None;
        }
        let this = Self::begin(tracing, call)?;
        let span = this.context.span();
        let method = known_method(method);
        let verb = if method == OTHER_METHOD { "HTTP" } else { method };
        span.update_name(route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}")));
        span.set_attribute(KeyValue::new("http.request.method", method));
        span.set_attribute(KeyValue::new("url.scheme", tracing.scheme));
        // A path may contain personal data, where an id is expected as well. The route is what is left without it.
        span.set_attribute(KeyValue::new("url.path", route.unwrap_or("REDACTED").to_owned()));
        if let Some(route) = route {
            span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
        Some(this)
    }

    /// The span of a gRPC call, if it is sampled. `call` carries it from now on.
    pub(crate) fn grpc(call: &mut CallContext, method: &'static str) -> Option<Self> {
        let this = Self::begin(on()?, call)?;
        let span = this.context.span();
        span.update_name(method);
        span.set_attribute(KeyValue::new("rpc.system.name", "grpc"));
        span.set_attribute(KeyValue::new("rpc.method", method));
        Some(this)
    }

    /// Has the sampler decide. Nothing is built for a request that is not sampled but its ids.
    fn begin(Tracing { tracer, .. }: &Tracing, call: &mut CallContext) -> Option<Self> {
        let caller = call.caller().map_or_else(Context::new, |caller| Context::new().with_remote_span_context(caller));
        let span = tracer.build_with_context(SpanBuilder::from_name("").with_kind(SpanKind::Server), &caller);
        call.enter(opentelemetry::trace::Span::span_context(&span));
        let is_sampled = opentelemetry::trace::Span::is_recording(&span);
        is_sampled.then(|| Self { context: Context::new().with_span(span), is_answered: false })
    }

    /// The context for the work on the request.
    pub(crate) fn context(&self) -> Context {
        self.context.clone()
    }

    /// Does `work` on a request, in the context of its span if it has one.
    pub(crate) async fn around<F: Future>(this: Option<&Self>, work: F) -> F::Output {
        match this {
            None => work.await,
            Some(span) => work.with_context(span.context()).await,
        }
    }

    /// The span's id.
    pub(crate) fn id(&self) -> SpanId {
        self.context.span().span_context().span_id()
    }

    /// Ends the span of an HTTP request.
    pub(crate) fn answered(mut self, status: StatusCode) {
        self.is_answered = true;
        self.context.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            self.fail(status.as_str().to_owned());
        }
    }

    /// Ends the span of a gRPC call.
    pub(crate) fn returned(mut self, code: Code) {
        use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
        self.is_answered = true;
        self.context.span().set_attribute(KeyValue::new("rpc.response.status_code", code_name(code)));
        if let DataLoss | DeadlineExceeded | Internal | Unavailable | Unimplemented | Unknown = code {
            self.fail(code_name(code));
        }
    }

    fn fail(&self, reason: impl Into<Value>) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("error.type", reason));
        span.set_status(Status::error(""));
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        if !self.is_answered {
            // The client has left, or its time is over.
            self.fail("cancelled");
        }
        self.context.span().end();
    }
}
