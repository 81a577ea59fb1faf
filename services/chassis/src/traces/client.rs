//! The span of an attempt to call another service, by the same conventions.

use axum::http::{HeaderValue, StatusCode, Uri};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;
use tonic::Code;
use uuid::Uuid;

use super::{code_name, fail, on, traceparent};

/// The span of an attempt. Dropped without an outcome, it says so.
pub(crate) struct ClientSpan {
    span: Span,
    has_outcome: bool,
}

impl ClientSpan {
    /// `GET path` of the service at `base`, for the sampled request that this task works for.
    pub(crate) fn http(base: &str, path: &str) -> Option<Self> {
        Self::begin(base, || {
            let template = template(path);
            let attributes = vec![
                KeyValue::new("http.request.method", "GET"),
                KeyValue::new("url.full", format!("{base}{template}")),
                KeyValue::new("url.template", template.clone()),
            ];
            (format!("GET {template}"), attributes)
        })
    }

    /// A call of `method` of the service at `base`, for the same.
    pub(crate) fn grpc(base: &str, method: &'static str) -> Option<Self> {
        Self::begin(base, || {
            let attributes = vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)];
            (method.to_owned(), attributes)
        })
    }

    fn begin(base: &str, describe: impl FnOnce() -> (String, Vec<KeyValue>)) -> Option<Self> {
        let tracing = on()?;
        if !Context::map_current(|current| current.span().span_context().is_sampled()) {
            return None;
        }
        let (name, mut attributes) = describe();
        let server: Uri = base.parse().unwrap_or_default();
        attributes.extend(server.host().map(|host| KeyValue::new("server.address", host.to_owned())));
        attributes.extend(server.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_attributes(attributes);
        Some(Self { span: tracing.tracer.build(builder), has_outcome: false })
    }

    /// The header that makes the other service's span a child of this one.
    pub(crate) fn traceparent(&self) -> HeaderValue {
        traceparent::write(self.span.span_context())
    }

    /// The other service has answered by HTTP.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.has_outcome = true;
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_client_error() || status.is_server_error() {
            fail(&mut self.span, status.as_str().to_owned());
        }
    }

    /// The call has ended with this code.
    pub(crate) fn returned(&mut self, code: Code) {
        self.has_outcome = true;
        self.span.set_attribute(KeyValue::new("rpc.response.status_code", code_name(code)));
        if code != Code::Ok {
            fail(&mut self.span, code_name(code));
        }
    }

    /// There is no usable answer.
    pub(crate) fn failed(&mut self, reason: &'static str) {
        self.has_outcome = true;
        fail(&mut self.span, reason);
    }
}

impl Drop for ClientSpan {
    fn drop(&mut self) {
        if !self.has_outcome {
            // It took too long, or nobody waits for it any more.
            fail(&mut self.span, "cancelled");
        }
    }
}

/// A path without its query, and with `{id}` in the place of each id.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let segments = path.split('/').map(|segment| if segment.parse::<Uuid>().is_ok() { "{id}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_neither_ids_nor_a_query() {
        assert_eq!(template("/users/0198c0de-0000-7000-8000-000000000000"), "/users/{id}");
        assert_eq!(template("/users?id=0198c0de-0000-7000-8000-000000000000"), "/users");
        assert_eq!(template("/events?from=end"), "/events");
    }
}
