//! The process's metrics, exported in Prometheus' text format.

use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::Histogram;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Name of the histogram of request durations, in seconds (OpenTelemetry's semantic conventions for HTTP).
const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
/// Name of the histogram of gRPC call durations, in seconds (the same conventions, for RPC).
pub(crate) const CALL_DURATION: &str = "rpc_server_call_duration_seconds";
/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// How often recorded durations are sorted into buckets. Until then each of them takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder, installed at the first call.
pub fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(REQUEST_DURATION.to_owned()), &BUCKETS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(CALL_DURATION.to_owned()), &BUCKETS))
            .and_then(PrometheusBuilder::install_recorder)
            .expect("the buckets are not empty, and this is the process's only recorder");
        metrics::describe_histogram!(REQUEST_DURATION, metrics::Unit::Seconds, "Time to answer a request.");
        metrics::describe_histogram!(CALL_DURATION, metrics::Unit::Seconds, "Time to answer a gRPC call.");
        handle
    })
}

/// Sorts recorded durations into their buckets at intervals, for ever.
pub async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        recorder().run_upkeep();
    }
}

/// The duration histograms by route and outcome. A lookup costs less than registering the metric for each request.
#[derive(Debug, Default)]
pub(crate) struct Durations(RwLock<HashMap<Box<str>, ByOutcome>>);

type ByOutcome = HashMap<(Method, StatusCode), Histogram>;

impl Durations {
    /// Records that a request by `method` for the route template `route` was answered `status` after `duration`.
    pub(crate) fn record(&self, method: Method, route: &str, status: StatusCode, duration: Duration) {
        let key = (method, status);
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = known.get(route).and_then(|route| route.get(&key)) {
            return histogram.record(duration);
        }
        drop(known);
        let histogram = metrics::histogram!(
            REQUEST_DURATION,
            "http_request_method" => known_method(&key.0),
            "http_route" => route.to_owned(),
            "http_response_status_code" => status.as_u16().to_string(),
        );
        histogram.record(duration);
        // A client may invent any number of methods. These are not kept.
        if known_method(&key.0) != OTHER_METHOD {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            known.entry(route.into()).or_default().insert(key, histogram);
        }
    }
}

/// The conventions' name for an unknown method.
const OTHER_METHOD: &str = "_OTHER";

fn known_method(method: &Method) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]
        .into_iter()
        .find(|known| method.as_str() == *known)
        .unwrap_or(OTHER_METHOD)
}
