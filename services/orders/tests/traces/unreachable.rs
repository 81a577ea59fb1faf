//! A collector that is away, slow or full.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use dev::process::free_address;
use tokio::net::TcpListener;

use crate::support::{Caller, Orders, Users, order_of};

/// More spans than the queue has places.
const REQUESTS: usize = 60;

/// Serves `router` as a collector.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_slow_or_full_costs_no_request_and_little_time_at_the_end() {
    let users = Users::start().await;
    let rosa = users.register().await;
    let away = free_address().to_string();
    let slow = serve(Router::new().fallback(async || std::future::pending::<StatusCode>().await)).await;
    let full = serve(Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE)).await;
    for (collector, protocol) in
        [(&away, "http/protobuf"), (&away, "grpc"), (&slow, "http/protobuf"), (&full, "http/protobuf")]
    {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16".to_owned()),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8".to_owned()),
        ];
        let orders = Orders::start(&[users.variables("http"), variables.to_vec()].concat()).await;
        for _ in 0..REQUESTS {
            let traceparent = Caller::new().traceparent(true);
            orders.client.post("/orders").json(&order_of(&rosa)).header("traceparent", traceparent).await.expect(201);
        }
        let (begun, process) = (Instant::now(), orders.process);
        let ended = tokio::task::spawn_blocking(|| process.stop()).await.expect("joined").expect("ended");
        assert_eq!(ended.code(), 0, "{collector} by {protocol}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{collector} by {protocol}: {:?}", begun.elapsed());
    }
}
