//! What each metric of this crate says. Counters that an operator looks for begin at zero, so that a look finds no gap.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

use super::{ACTIVE_REQUESTS, CALL_DURATION, REQUEST_DURATION};

/// Describes the metrics.
pub(super) fn describe() {
    describe_requests();
    describe_events();
    describe_gauge!("circuit_breaker_state", "The state of the circuit breaker: 0 closed, 1 half-open, 2 open.");
    describe_counter!("remote_calls_total", Unit::Count, "Calls to the other service, by outcome.");
    describe_counter!("remote_retries_total", Unit::Count, "Repeated attempts of calls to the other service.");
}

fn describe_requests() {
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "Time to answer a request.");
    describe_histogram!(CALL_DURATION, Unit::Seconds, "Time to answer a gRPC call.");
    describe_gauge!(ACTIVE_REQUESTS, Unit::Count, "Requests that are being answered.");
    describe_counter!("http_connections_refused_total", Unit::Count, "HTTP connections above the limits.");
    counter!("http_connections_refused_total").increment(0);
    describe_counter!("grpc_connections_refused_total", Unit::Count, "gRPC connections above the limits.");
    counter!("grpc_connections_refused_total").increment(0);
    let unreadable = "Requests that are no valid HTTP, or too large.";
    describe_counter!("http_requests_unreadable_total", Unit::Count, unreadable);
    for reason in ["malformed", "too large"] {
        counter!("http_requests_unreadable_total", "reason" => reason).increment(0);
    }
    let failed = "Connections of clients whose TLS handshake failed.";
    describe_counter!("tls_handshakes_failed_total", Unit::Count, failed);
    counter!("tls_handshakes_failed_total").increment(0);
}

fn describe_events() {
    let withheld = "How long the oldest open transaction has held back committed events.";
    describe_gauge!("event_log_withheld_seconds", Unit::Seconds, withheld);
    describe_gauge!("parked_events", Unit::Count, "Events that could not be applied.");
    let lag = "Time since it was last known that all events of the other service were read.";
    describe_gauge!("event_lag_seconds", Unit::Seconds, lag);
    describe_counter!("events_consumed_total", Unit::Count, "Events read from the other service.");
    describe_counter!("events_skipped_total", Unit::Count, "Events that a replica does not read, by reason.");
    describe_counter!("event_gaps_total", Unit::Count, "How often events were gone before they were read.");
    describe_gauge!("event_refill_pending", Unit::Count, "1 until what lost events changed has been read anew.");
    describe_counter!("events_published_total", Unit::Count, "Events sent to a broker.");
    let lag = "Time since it was last known that all events were sent to the broker.";
    describe_gauge!("relay_lag_seconds", Unit::Seconds, lag);
}
