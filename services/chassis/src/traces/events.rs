//! The spans of events that are published and consumed, by the conventions for
//! [messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/). An event carries the `traceparent`
//! of the request that caused it.

use opentelemetry::trace::{
    FutureExt, Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;
use tracing::Instrument;

use super::{fail, on, traceparent};
use crate::context::CallContext;
use crate::events::CloudEvent;
use crate::events::consumer::Received;

/// The span of an event on its way to a broker. Dropped, it ends: the broker has confirmed the event.
#[must_use = "dropped, it ends"]
pub struct ProducerSpan(Span);

impl ProducerSpan {
    /// The broker has not taken the event.
    pub fn refused(mut self) {
        fail(&mut self.0, "refused");
    }
}

/// The span of sending `event` to `topic` of a broker of the kind `system`, below the request that caused it, if that one
/// was sampled.
pub fn publishing(system: &'static str, topic: &str, event: &CloudEvent) -> Option<ProducerSpan> {
    let tracing = on()?;
    let cause = cause(event.traceparent.as_deref())?;
    let mut attributes = messaging("send", system, topic);
    attributes.extend(describe(&event.id, &event.r#type));
    let builder = SpanBuilder::from_name(format!("send {topic}"))
        .with_kind(SpanKind::Producer)
        .with_links(vec![Link::with_context(cause.clone())])
        .with_attributes(attributes);
    let span = tracing.tracer.build_with_context(builder, &Context::new().with_remote_span_context(cause));
    span.is_recording().then_some(ProducerSpan(span))
}

/// Does `work`, which applies these events of the service `of`, in a span that is linked to the sampled requests among those
/// that caused them. Without one, there is no span.
pub(crate) async fn consuming<T, E>(
    of: &'static str,
    system: &'static str,
    events: &[Received],
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(span) = begin(of, system, events) else { return work.await };
    let own = span.span_context().clone();
    let log = tracing::info_span!("events", of, trace.id = %own.trace_id(), span.id = %own.span_id());
    let context = Context::new().with_span(span);
    let applied = CallContext::of(&own).scope(work).with_context(context.clone()).instrument(log).await;
    if applied.is_err() {
        context.span().set_attribute(KeyValue::new("error.type", "refused"));
        context.span().set_status(Status::error(""));
    }
    context.span().end();
    applied
}

fn begin(of: &'static str, system: &'static str, events: &[Received]) -> Option<Span> {
    let tracing = on()?;
    let link = |event: &Received| {
        let attributes = describe(&event.id, &event.r#type).into();
        Some(Link::new(cause(event.traceparent.as_deref())?, attributes, 0))
    };
    let links: Vec<Link> = events.iter().filter_map(link).collect();
    if links.is_empty() {
        return None;
    }
    let mut attributes = messaging("process", system, of);
    attributes.push(KeyValue::new("messaging.batch.message_count", events.len() as i64));
    let builder = SpanBuilder::from_name(format!("process {of}"))
        .with_kind(SpanKind::Consumer)
        .with_links(links)
        .with_attributes(attributes);
    let span = tracing.tracer.build_with_context(builder, &Context::new());
    span.is_recording().then_some(span)
}

/// The sampled request that caused an event.
fn cause(traceparent: Option<&str>) -> Option<SpanContext> {
    traceparent::read(traceparent?).filter(SpanContext::is_sampled)
}

fn messaging(operation: &'static str, system: &'static str, destination: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.system", system),
        KeyValue::new("messaging.destination.name", destination.to_owned()),
    ]
}

fn describe(id: &str, r#type: &str) -> [KeyValue; 2] {
    let (id, r#type) = (id.to_owned(), r#type.to_owned());
    [KeyValue::new("messaging.message.id", id), KeyValue::new("cloudevents.event_type", r#type)]
}
