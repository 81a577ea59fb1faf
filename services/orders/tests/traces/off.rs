//! Without a collector.

use crate::support::{Caller, Orders, Users, collector, id, order_of, traced};

/// What is off passes on what it was given, to the other service and into events, and makes nothing of its own.
#[tokio::test(flavor = "multi_thread")]
async fn without_traces_nothing_is_exported_and_a_caller_s_trace_is_passed_on_as_it_is() {
    let users = Users::start().await;
    let rosa = users.register().await;
    let off = vec![("OTEL_SDK_DISABLED", "true".to_owned()), ("OTEL_SERVICE_NAME", "orders without traces".to_owned())];
    let empty = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", String::new())];
    for off in [[traced(), off].concat(), empty] {
        let orders = Orders::start(&[users.variables("http"), off].concat()).await;
        let caller = Caller::new();
        let (sampled, unsampled) = (caller.traceparent(true), caller.traceparent(false));
        for (traceparent, stored) in [(None, None), (Some(&sampled), Some(&sampled)), (Some(&unsampled), None)] {
            let placing = orders.client.post("/orders").json(&order_of(&rosa));
            let placing = match traceparent {
                Some(traceparent) => placing.header("traceparent", traceparent),
                None => placing,
            };
            let order = id(&placing.await.expect(201).json());
            let event = orders.client.get(format!("/orders/{order}/events")).await.expect(200).json()["items"][0].clone();
            assert_eq!(event.get("traceparent").and_then(|it| it.as_str()), stored.map(String::as_str), "{event}");
        }
        // users is called by the caller's own span, as far as anybody knows.
        collector().until("the call of users", |span| span.parent() == caller.span).await;
        assert!(collector().spans().iter().all(|span| !span.service().contains("orders without")));
        assert!(collector().of(&caller.trace).iter().all(|span| span.service() == "users"));
    }
}
