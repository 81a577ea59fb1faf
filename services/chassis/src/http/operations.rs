//! The routes for operators and their tools: liveness, readiness, metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::events::consumer::lag;
use crate::events::relay_lag;
use crate::health::Health;
use crate::http::problem::Problem;
use crate::remote::{Remote, gauge_breaker};
use crate::responses;

/// Sets the gauges whose values are read at the time of the request.
pub type Gauges = Arc<dyn Fn() + Send + Sync>;

/// What a service provides for these routes.
#[derive(Clone)]
pub struct Operations {
    /// Checked for every `GET /health/ready`.
    pub health: Health,
    /// Called before the metrics are written.
    pub gauges: Gauges,
    /// The services it calls.
    pub remotes: Vec<Remote>,
}

/// A service's state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
struct Answer {
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
        200: "The database answers and has the schema that this version needs, and no events are lost." => Answer [],
        503: "The database does not answer or lacks a migration, the service is stopping, or lacks lost events. \
            `detail` says which.",
    }
}

impl Answer {
    fn ok(remotes: &[Remote]) -> axum::Json<Self> {
        let circuit_breakers = remotes.iter().map(|remote| (remote.name(), remote.breaker().as_str())).collect();
        axum::Json(Self { status: "ok", circuit_breakers })
    }
}

/// The routes, for any service.
pub fn routes<S: Clone + Send + Sync + 'static>(operations: Operations) -> OpenApiRouter<S> {
    health(operations.clone()).merge(metrics(operations))
}

/// Those of health.
pub fn health<S: Clone + Send + Sync + 'static>(operations: Operations) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).with_state(operations)
}

/// The one of the metrics.
pub fn metrics<S: Clone + Send + Sync + 'static>(operations: Operations) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(read_metrics)).with_state(operations)
}

/// Is the process serving?
///
/// It asks neither the database nor another service.
#[utoipa::path(
    get, path = "/health/live", tag = "operations",
    responses((status = 200, body = Answer, description = "The process serves."))
)]
async fn live() -> axum::Json<Answer> {
    Answer::ok(&[])
}

/// Can the service do its work?
///
/// It can while the database answers and has the schema that this version needs. Balancers ask this.
#[utoipa::path(get, path = "/health/ready", tag = "operations", responses(Ready))]
async fn ready(State(operations): State<Operations>) -> Result<axum::Json<Answer>, Problem> {
    operations.health.check().await?;
    Ok(Answer::ok(&operations.remotes))
}

/// Read the metrics.
///
/// They have Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain", description = "The metrics."))
)]
async fn read_metrics(State(operations): State<Operations>) -> Response {
    (operations.gauges)();
    lag::record_gauges();
    relay_lag::record_gauges();
    operations.remotes.iter().for_each(gauge_breaker);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], crate::metrics::render()).into_response()
}
