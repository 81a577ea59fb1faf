//! The process's metrics, exported in Prometheus' text format.

mod descriptions;
mod process;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::resource;

/// Name of the histogram of request durations, in seconds (OpenTelemetry's semantic conventions for HTTP).
const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
/// Name of the histogram of gRPC call durations, in seconds (the same conventions, for RPC).
pub(crate) const CALL_DURATION: &str = "rpc_server_call_duration_seconds";
/// Name of the gauge of requests under way (the same conventions).
const ACTIVE_REQUESTS: &str = "http_server_active_requests";
/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// How often recorded durations are sorted into buckets. Until then each of them takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder, installed at the first call.
pub fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new()
            // Every histogram is one of durations.
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .and_then(PrometheusBuilder::install_recorder)
            .expect("the buckets are not empty, and this is the process's only recorder");
        descriptions::describe();
        handle
    })
}

/// All metrics in Prometheus' text format.
pub(crate) fn render() -> String {
    let mut text = recorder().render();
    process::render(&mut text);
    resource::render(&mut text);
    text
}

/// Sorts recorded durations into their buckets at intervals, for ever.
pub async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        recorder().run_upkeep();
    }
}

/// The gauge of the requests that are being answered.
pub(crate) fn active_requests() -> Gauge {
    metrics::gauge!(ACTIVE_REQUESTS)
}

type ByOutcome = HashMap<(Method, StatusCode), Histogram>;

thread_local! {
    /// The histograms of request durations, by route template. Each thread has found its own: at a lock that all share, they
    /// would wait for each other.
    static DURATIONS: RefCell<HashMap<Box<str>, ByOutcome>> = RefCell::default();
}

/// Records that a request by `method` for the route template `route` was answered `status` after `duration`.
pub(crate) fn record_duration(method: Method, route: &str, status: StatusCode, duration: Duration) {
    let key = (method, status);
    DURATIONS.with_borrow_mut(|known| {
        if let Some(histogram) = known.get(route).and_then(|route| route.get(&key)) {
            return histogram.record(duration);
        }
        // What is kept must be the recorder's.
        recorder();
        let histogram = metrics::histogram!(
            REQUEST_DURATION,
            "http_request_method" => known_method(&key.0),
            "http_route" => route.to_owned(),
            "http_response_status_code" => status.as_u16().to_string(),
        );
        histogram.record(duration);
        // A client may invent any number of methods. These are not kept.
        if known_method(&key.0) != OTHER_METHOD {
            known.entry(route.into()).or_default().insert(key, histogram);
        }
    });
}

/// The conventions' name for an unknown method.
pub(crate) const OTHER_METHOD: &str = "_OTHER";

/// The method, if the conventions know it.
pub(crate) fn known_method(method: &Method) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]
        .into_iter()
        .find(|known| method.as_str() == *known)
        .unwrap_or(OTHER_METHOD)
}
