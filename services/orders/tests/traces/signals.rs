//! What a process says of itself in traces, metrics and log lines.

use std::path::Path;

use dev::http::Client;
use dev::process::free_address;
use serde_json::Value;

use crate::support::{Caller, Orders, Users, collector, traced};

const NAMES: [&str; 3] = ["service.name", "service.version", "service.instance.id"];

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The labels of the only `target_info`.
async fn target_info(metrics: &Client) -> String {
    let text = metrics.get("/metrics").await.expect(200).text();
    let mut found = text.lines().filter_map(|line| line.strip_prefix("target_info{"));
    let labels = found.next().and_then(|line| line.strip_suffix("} 1")).unwrap_or_else(|| panic!("{text}")).to_owned();
    assert!(found.next().is_none(), "{text}");
    labels
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_metrics_and_log_lines_are_of_the_same_instance_of_a_service() {
    let users = Users::start().await;
    let admin = free_address();
    let mut instances = Vec::new();
    // With an address of operators, lines are written by another subscriber.
    for (name, more) in [("first", vec![]), ("second", vec![("ADMIN_ADDR", admin.to_string())])] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let said = vec![
            ("OTEL_SERVICE_NAME", name.to_owned()),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=a%20test,service.name=no".to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
            ("RUST_LOG", "info,chassis=debug".to_owned()),
        ];
        let is_apart = !more.is_empty();
        let orders = Orders::start_with_log(&[users.variables("local"), traced(), said, more].concat(), &log).await;
        let caller = Caller::new();
        orders.client.get("/orders").header("traceparent", caller.traceparent(true)).await.expect(200);
        let span = collector().until("the request", |span| span.parent() == caller.span).await;

        let of_span = NAMES.map(|name| span.resource[name].clone());
        assert_eq!((&*of_span[0], &*of_span[1]), (name, env!("CARGO_PKG_VERSION")));
        assert_eq!(span.resource["deployment.environment.name"], "a test");
        let [_, version, instance] = &of_span;
        let labels = [
            ("deployment_environment_name", "a test"),
            ("service_instance_id", instance),
            ("service_name", name),
            ("service_version", version),
        ];
        let expected = labels.map(|(label, value)| format!("{label}=\"{value}\"")).join(",");
        let metrics = if is_apart { Client::at(admin) } else { orders.client.clone() };
        assert_eq!(target_info(&metrics).await, expected);
        let lines = lines(&log);
        assert!(lines.iter().any(|line| line["span"]["trace.id"] == caller.trace.as_str()), "{lines:?}");
        for line in &lines {
            assert_eq!(NAMES.map(|name| line[name].as_str()), of_span.each_ref().map(|it| Some(&**it)), "{line}");
            assert!(line["message"].is_string() && line.get("deployment.environment.name").is_none(), "{line}");
        }
        instances.push(of_span[2].clone());
    }
    assert_ne!(instances[0], instances[1]);
}
