//! A collector: it keeps what it gets by OTLP, over HTTP and over gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use dev::wait::until;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Outcome;
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A span, and what its process says of itself.
#[derive(Debug, Clone)]
pub struct Seen {
    pub resource: BTreeMap<String, String>,
    span: Span,
}

impl Seen {
    pub fn service(&self) -> &str {
        &self.resource["service.name"]
    }

    pub fn name(&self) -> &str {
        &self.span.name
    }

    pub fn kind(&self) -> SpanKind {
        self.span.kind()
    }

    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// The traces and the spans that it is linked to.
    pub fn links(&self) -> Vec<(String, String)> {
        self.span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect()
    }

    pub fn has_failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == Outcome::Error)
    }

    pub fn attributes(&self) -> BTreeMap<String, String> {
        texts(&self.span.attributes)
    }

    /// The attributes with these names.
    pub fn has<const N: usize>(&self, names: [&str; N]) -> [String; N] {
        let attributes = self.attributes();
        names.map(|name| attributes.get(name).cloned().unwrap_or_default())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: Option<&AnyValue>| match value.and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref()))).collect()
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Seen>>>);

impl Kept {
    fn spans(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, request: ExportTraceServiceRequest) {
        for of_process in request.resource_spans {
            let resource = texts(&of_process.resource.unwrap_or_default().attributes);
            let spans = of_process.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            self.spans().extend(spans.map(|span| Seen { resource: resource.clone(), span }));
        }
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.keep(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn take(State(kept): State<Kept>, body: Bytes) -> StatusCode {
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            kept.keep(request);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

pub struct Collector {
    kept: Kept,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

impl Collector {
    pub async fn start() -> Self {
        let kept = Kept::default();
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let grpc = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (of_http, of_grpc) = (http.local_addr().expect("an address"), grpc.local_addr().expect("an address"));
        let router = Router::new().route("/v1/traces", post(take)).with_state(kept.clone());
        tokio::spawn(async move { axum::serve(http, router).await });
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(kept.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(grpc)));
        Self { kept, http: of_http, grpc: of_grpc }
    }

    pub fn spans(&self) -> Vec<Seen> {
        self.kept.spans().clone()
    }

    /// The spans of a trace.
    pub fn of(&self, trace: &str) -> Vec<Seen> {
        self.spans().into_iter().filter(|span| span.trace() == trace).collect()
    }

    /// Waits for the span that `is_it`.
    pub async fn until(&self, claim: &str, is_it: impl Fn(&Seen) -> bool) -> Seen {
        until(claim, async || self.spans().iter().any(&is_it)).await;
        self.spans().into_iter().find(is_it).expect("it was there")
    }
}
