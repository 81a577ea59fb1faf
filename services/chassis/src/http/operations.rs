//! The routes for operators and their tools: liveness, readiness, metrics.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::problem::Problem;
use crate::metrics::recorder;
use crate::remote::{Remote, gauge_breaker};
use crate::responses;

/// Checks whether the service can do its work now. The problem says what is missing.
pub type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>> + Send + Sync>;
/// Sets the gauges whose values are read at the time of the request.
pub type Gauges = Arc<dyn Fn() + Send + Sync>;

/// What a service provides for these routes.
#[derive(Clone)]
pub struct Operations {
    /// Called for every `GET /health/ready`.
    pub ready: Readiness,
    /// Called before the metrics are written.
    pub gauges: Gauges,
    /// The services it calls.
    pub remotes: Vec<Remote>,
}

/// A service's state.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
    /// The state of the circuit breaker for each service it calls. A service that is down does not make this one unready.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    circuit_breakers: BTreeMap<&'static str, &'static str>,
}

responses! {
    /// The service is ready, or is not.
    Ready {
        200: "The database answers and has the schema that this version needs." => Health [],
        503: "The database does not answer or lacks a migration. `detail` says which.",
    }
}

impl Health {
    fn ok(remotes: &[Remote]) -> axum::Json<Self> {
        let circuit_breakers = remotes.iter().map(|remote| (remote.name(), remote.breaker().as_str())).collect();
        axum::Json(Self { status: "ok", circuit_breakers })
    }
}

/// The routes, for any service.
pub fn routes<S: Clone + Send + Sync + 'static>(operations: Operations) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(metrics)).with_state(operations)
}

/// Is the process serving?
#[utoipa::path(
    get, path = "/health/live", tag = "operations",
    responses((status = 200, body = Health, description = "The process serves."))
)]
async fn live() -> axum::Json<Health> {
    Health::ok(&[])
}

/// Whether the service can do its work: the database answers, and has the schema that this version needs.
#[utoipa::path(get, path = "/health/ready", tag = "operations", responses(Ready))]
async fn ready(State(operations): State<Operations>) -> Result<axum::Json<Health>, Problem> {
    (operations.ready)().await?;
    Ok(Health::ok(&operations.remotes))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain", description = "The metrics."))
)]
async fn metrics(State(operations): State<Operations>) -> Response {
    (operations.gauges)();
    operations.remotes.iter().for_each(gauge_breaker);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], recorder().render()).into_response()
}
