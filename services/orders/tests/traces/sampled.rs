//! Which requests are traced.

use crate::collector::Seen;
use crate::support::{Caller, Orders, Users, collector, id, order_of, traced};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_sampled_is_traced_by_no_service_and_its_event_says_nothing() {
    let users = Users::start().await;
    let rosa = users.register().await;
    let never = vec![
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", "0".to_owned()),
        ("OTEL_SERVICE_NAME", "sampled orders".to_owned()),
    ];
    let orders = Orders::start(&[users.variables("http"), traced(), never].concat()).await;
    let (refused, traced) = (Caller::new(), Caller::new());
    // users traces every request whose caller does not say otherwise.
    for traceparent in [None, Some(refused.traceparent(false)), Some(traced.traceparent(true))] {
        let placing = orders.client.post("/orders").json(&order_of(&rosa));
        let placing = match &traceparent {
            Some(traceparent) => placing.header("traceparent", traceparent),
            None => placing,
        };
        let order = id(&placing.await.expect(201).json());
        let event = orders.client.get(format!("/orders/{order}/events")).await.expect(200).json()["items"][0].clone();
        let is_sampled = traceparent.is_some_and(|traceparent| traceparent.ends_with("-01"));
        assert_eq!(event.get("traceparent").is_some(), is_sampled, "{event}");
    }
    collector().until("the sampled request", |span| span.parent() == traced.span).await;
    // Each process's spans arrive in the order in which they end.
    let of_users = |span: &Seen| span.service() == "users" && span.trace() == traced.trace;
    collector().until("its call", |span| of_users(span) && span.name() == "GET /users/{id}").await;
    let spans = collector().spans();
    let of_orders: Vec<&Seen> = spans.iter().filter(|span| span.service() == "sampled orders").collect();
    assert!(!of_orders.is_empty() && of_orders.iter().all(|span| span.trace() == traced.trace), "{of_orders:?}");
    assert!(collector().of(&refused.trace).is_empty());
}
