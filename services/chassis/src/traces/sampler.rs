//! The one rule that the variables cannot say.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// The sampler of the variables. Beside it, what is linked to a sampled request is sampled: so a trace that begins with a
/// request does not end at its events.
#[derive(Debug, Clone)]
pub(super) struct ByLinks(pub(super) Sampler);

impl ShouldSample for ByLinks {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if links.iter().any(|link| link.span_context.is_sampled()) {
            let (decision, attributes) = (SamplingDecision::RecordAndSample, Vec::new());
            return SamplingResult { decision, attributes, trace_state: TraceState::NONE };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
