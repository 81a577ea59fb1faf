//! Traces by OpenTelemetry. Off unless a variable names the collector; then a request costs one look at [`on`].
//!
//! The sampler decides by the caller's `traceparent` or a random id, before anything else is known of a request. Only a
//! sampled request has spans. Its context is the current one of its task, where `shared-db` finds it for its statements.

mod client;
mod config;
mod events;
mod exporter;
mod sampler;
mod server;
pub(crate) mod traceparent;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, Status};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tonic::Code;

pub(crate) use client::ClientSpan;
pub use config::TracesConfig;
pub(crate) use events::consuming;
pub use events::{ProducerSpan, publishing};
pub(crate) use server::ServerSpan;

/// How long the last spans may take to leave, at the end of the program.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// What makes the spans of this process; empty while traces are off.
static TRACING: OnceLock<Tracing> = OnceLock::new();

struct Tracing {
    tracer: SdkTracer,
    /// The scheme of the URLs that are served.
    scheme: &'static str,
}

/// What makes spans, if traces are on.
fn on() -> Option<&'static Tracing> {
    TRACING.get()
}

/// The traces of a process. Dropped, they end with the last spans.
#[must_use = "dropped, they end"]
pub struct Traces(Option<SdkTracerProvider>);

impl Drop for Traces {
    fn drop(&mut self) {
        // A collector that is away must not keep the program. What is left then is lost.
        let _ended = self.0.take().map(|provider| provider.shutdown_with_timeout(LAST_EXPORT));
    }
}

/// Marks what a span stands for as failed.
fn fail(span: &mut impl Span, reason: impl Into<opentelemetry::Value>) {
    span.set_attribute(KeyValue::new("error.type", reason));
    span.set_status(Status::error(""));
}

/// The name that the conventions give to a code: `NOT_FOUND`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
