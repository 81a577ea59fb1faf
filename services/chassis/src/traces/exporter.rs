//! What carries spans to the collector: a queue and a thread of the SDK, and connections of this program. No request waits
//! for it. A span that finds the queue full is lost.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, Response, Uri};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter as Exporter};
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;

use crate::tls::{Connector, Protocol as Inner, TlsConfig};

/// The largest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP/1.1.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// Where spans go.
pub(super) struct Collector {
    pub(super) url: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: HeaderMap,
    /// The longest time for a batch.
    pub(super) limit: Duration,
}

impl Collector {
    /// The queue of finished spans, and what sends them to the collector.
    ///
    /// # Errors
    /// If the files of `tls` cannot be used.
    pub(super) fn processor(self, tls: &TlsConfig) -> Result<BatchSpanProcessor, String> {
        let Self { url, protocol, headers, limit } = self;
        let tls = if url.scheme_str() == Some("https") { Some(tls.calling()?) } else { None };
        let connector = |inner| Connector::new(tls, inner, limit);
        let exporter = match protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from(url).connect_timeout(limit).timeout(limit);
                SpanExporter::builder()
                    .with_tonic()
                    .with_channel(endpoint.connect_with_connector_lazy(connector(Inner::Http2)))
                    .with_metadata(MetadataMap::from_headers(headers))
                    .with_timeout(limit)
                    .build()
            }
            Protocol::HttpProtobuf => SpanExporter::builder()
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_http_client(Posting::new(connector(Inner::Http1), limit))
                .with_endpoint(url.to_string())
                .with_headers(texts(&headers))
                .with_timeout(limit)
                .build(),
        };
        let exporter = exporter.map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: {error}"))?;
        Ok(BatchSpanProcessor::builder(Reporting { exporter, fails: AtomicBool::new(false) }).build())
    }
}

fn texts(headers: &HeaderMap) -> HashMap<String, String> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Says in the log when spans begin to be lost, and when that ends.
#[derive(Debug)]
struct Reporting {
    exporter: SpanExporter,
    fails: AtomicBool,
}

impl Exporter for Reporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failed = self.fails.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !failed => tracing::warn!(%error, "traces do not reach the collector now"),
            Ok(()) if failed => tracing::info!("traces reach the collector again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sends requests inside the runtime. The SDK asks for it from a thread outside.
struct Posting {
    client: Client<Connector, Full<Bytes>>,
    runtime: Handle,
    limit: Duration,
}

impl Posting {
    fn new(connector: Connector, limit: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client, runtime: Handle::current(), limit }
    }
}

impl fmt::Debug for Posting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Posting")
    }
}

#[tonic::async_trait]
impl HttpClient for Posting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, limit) = (self.client.clone(), self.limit);
        let answer = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        self.runtime.spawn(async move { tokio::time::timeout(limit, answer).await? }).await?
    }
}
