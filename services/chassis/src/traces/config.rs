//! The variables of traces, as <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> names
//! them.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use clap::{Args, ValueEnum};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, ShouldSample};

use super::exporter::{Collector, Protocol};
use super::sampler::ByLinks;
use super::{TRACING, Traces, Tracing};
use crate::resource::{Resource, pairs};
use crate::tls::TlsConfig;

/// Which requests are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum SamplerName {
    AlwaysOn,
    AlwaysOff,
    #[value(name = "traceidratio")]
    TraceIdRatio,
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    #[value(name = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

/// The variables of traces.
#[derive(Debug, Clone, Args)]
pub struct TracesConfig {
    /// where traces go: the collector's address, such as `http://127.0.0.1:4318` [default: nowhere]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = endpoint)]
    otel_exporter_otlp_endpoint: Option<String>,
    /// the same for traces alone; with http/protobuf it is the whole URL, such as `http://127.0.0.1:4318/v1/traces`
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_parser = endpoint)]
    otel_exporter_otlp_traces_endpoint: Option<String>,
    /// how spans travel
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", default_value = "http/protobuf")]
    otel_exporter_otlp_protocol: Protocol,
    /// headers for the collector, `name=value`, separated by commas; special characters in values are percent-encoded
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_parser = headers)]
    otel_exporter_otlp_headers: Option<HeaderMap>,
    /// how many milliseconds the collector may take for a batch of spans
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TIMEOUT", default_value = "10000", value_parser = milliseconds)]
    otel_exporter_otlp_timeout: Duration,
    /// which requests are traced; the parent is the caller, which says in `traceparent` whether it traces
    #[arg(long, env = "OTEL_TRACES_SAMPLER", default_value = "parentbased_always_on")]
    otel_traces_sampler: SamplerName,
    /// the share of the requests that traceidratio traces, such as 0.1
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value = "1", value_parser = ratio)]
    otel_traces_sampler_arg: f64,
    /// `true`: no traces, whatever else is set
    #[arg(long, env = "OTEL_SDK_DISABLED", default_value = "false", value_parser = ["true", "false"], ignore_case = true)]
    otel_sdk_disabled: String,
}

impl TracesConfig {
    /// Traces this `process`, if a variable names a collector. `tls` says how a collector at an `https` address is called.
    /// Call it inside the runtime.
    ///
    /// # Errors
    /// If the files of `tls` cannot be used.
    pub fn begin(&self, process: &Resource, tls: &TlsConfig) -> Result<Traces, String> {
        let Some(url) = self.url() else { return Ok(Traces(None)) };
        let provider = SdkTracerProvider::builder()
            .with_sampler(self.sampler())
            .with_resource(describe(process))
            .with_span_processor(self.collector(url.clone()).processor(tls)?)
            .build();
        let scheme = if tls.identity()?.is_some() { "https" } else { "http" };
        let is_first = TRACING.set(Tracing { tracer: provider.tracer("chassis"), scheme }).is_ok();
        assert!(is_first, "a process has one tracer");
        // For shared-db.
        global::set_tracer_provider(provider.clone());
        let collector = url.authority().map(|authority| authority.as_str());
        tracing::info!(collector, "requests are traced");
        Ok(Traces(Some(provider)))
    }

    /// Where spans go.
    fn url(&self) -> Option<Uri> {
        let of_traces = self.otel_exporter_otlp_traces_endpoint.as_deref().filter(|url| !url.is_empty());
        let general = self.otel_exporter_otlp_endpoint.as_deref().filter(|url| !url.is_empty());
        let url = match (of_traces, general, self.otel_exporter_otlp_protocol) {
            _ if self.otel_sdk_disabled.eq_ignore_ascii_case("true") => return None,
            (Some(url), _, _) => url.to_owned(),
            (None, Some(url), Protocol::Grpc) => url.to_owned(),
            (None, Some(url), Protocol::HttpProtobuf) => format!("{}/v1/traces", url.trim_end_matches('/')),
            (None, None, _) => return None,
        };
        Some(url.parse().expect("it was checked"))
    }

    fn collector(&self, url: Uri) -> Collector {
        let (protocol, limit) = (self.otel_exporter_otlp_protocol, self.otel_exporter_otlp_timeout);
        Collector { url, protocol, headers: self.otel_exporter_otlp_headers.clone().unwrap_or_default(), limit }
    }

    fn sampler(&self) -> Box<dyn ShouldSample> {
        let ratio = Sampler::TraceIdRatioBased(self.otel_traces_sampler_arg);
        let by_parent = |root| Sampler::ParentBased(Box::new(root));
        let sampler = match self.otel_traces_sampler {
            SamplerName::AlwaysOff => return Box::new(Sampler::AlwaysOff),
            SamplerName::AlwaysOn => Sampler::AlwaysOn,
            SamplerName::TraceIdRatio => ratio,
            SamplerName::ParentBasedAlwaysOn => by_parent(Sampler::AlwaysOn),
            SamplerName::ParentBasedAlwaysOff => by_parent(Sampler::AlwaysOff),
            SamplerName::ParentBasedTraceIdRatio => by_parent(ratio),
        };
        Box::new(ByLinks(sampler))
    }
}

/// What traces say of the process.
fn describe(process: &Resource) -> opentelemetry_sdk::Resource {
    let own = process.attributes().map(|(name, value)| KeyValue::new(name.to_owned(), value.to_owned()));
    let of_sdk = Box::new(TelemetryResourceDetector);
    opentelemetry_sdk::Resource::builder_empty().with_detector(of_sdk).with_attributes(own).build()
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    const SHAPE: &str = "must be http://host:port or https://host:port";
    if text.is_empty() {
        return Ok(String::new());
    }
    let uri: Uri = text.parse().map_err(|_| SHAPE)?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err(SHAPE),
    }
}

fn headers(text: &str) -> Result<HeaderMap, &'static str> {
    let header = |(name, value): (&str, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::try_from(value).ok()?))
    };
    let headers: Option<HeaderMap> = pairs(text)?.into_iter().map(header).collect();
    headers.ok_or("has a name or a value that cannot stand in a header")
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(number @ 1..=600_000) => Ok(Duration::from_millis(number)),
        _ => Err("must be a whole number of milliseconds from 1 to 600000"),
    }
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or("must be a number from 0 to 1")
}
