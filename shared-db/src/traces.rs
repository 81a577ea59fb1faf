//! The spans of a sampled request in the database: one for each statement, and one for each wait for a connection. The
//! service makes the request's own span, and its tracer is the process's.

use std::sync::OnceLock;

use opentelemetry::global::{self, BoxedSpan, BoxedTracer};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use crate::summary::summary_of;

/// Whether the current task works for a sampled request. A look at the thread's context, which is empty without traces.
pub(crate) fn is_sampled() -> bool {
    Context::map_current(|current| current.span().span_context().is_sampled())
}

fn tracer() -> &'static BoxedTracer {
    // The service has set the tracer before it can sample a request.
    static TRACER: OnceLock<BoxedTracer> = OnceLock::new();
    TRACER.get_or_init(|| global::tracer("shared-db"))
}

/// The span of a statement: <https://opentelemetry.io/docs/specs/semconv/db/postgresql/>. The text and its parameters stay
/// here.
pub(crate) struct Statement(BoxedSpan);

impl Statement {
    /// Begins the span of the statement with this text.
    pub(crate) fn begin(sql: &str) -> Self {
        let summary = summary_of(sql);
        let attributes = [
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.operation.name", summary.operation),
            KeyValue::new("db.query.summary", summary.text.clone()),
        ];
        let builder = SpanBuilder::from_name(summary.text.clone()).with_kind(SpanKind::Client).with_attributes(attributes);
        Self(tracer().build(builder))
    }

    /// The statement has failed.
    pub(crate) fn fail(&mut self, error: &sqlx::Error) {
        let code = match error {
            sqlx::Error::Database(error) => error.code().map(|code| code.into_owned()),
            _ => None,
        };
        self.0.set_attributes(code.iter().map(|code| KeyValue::new("db.response.status_code", code.clone())));
        let reason = code.unwrap_or_else(|| if let sqlx::Error::Io(_) = error { "io" } else { "_OTHER" }.to_owned());
        self.0.set_attribute(KeyValue::new("error.type", reason));
        self.0.set_status(Status::error(""));
    }
}

/// Does `work` in a span of this name, if the current task works for a sampled request.
pub(crate) async fn within<T, E>(name: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let mut span = is_sampled().then(|| tracer().build(SpanBuilder::from_name(name)));
    let done = work.await;
    if let (Some(span), Err(_)) = (&mut span, &done) {
        span.set_status(Status::error(""));
    }
    done
}
