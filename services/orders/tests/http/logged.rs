//! What the real program logs under load while something is away, and what it never logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dev::http::Client;
use dev::postgres::ORDERS_ROLE;
use serde_json::Value;

use crate::program::Program;
use crate::support::{Service, id};

/// How many answers are a load.
const LOAD: usize = 1000;
/// Clients at the same time.
const CLIENTS: usize = 16;

fn count(lines: &[Value], message: &str) -> usize {
    lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(message))).count()
}

/// How many lines about the neighbour were left out.
fn omitted(lines: &[Value]) -> u64 {
    let about = |line: &&Value| line["message"].as_str().is_some_and(|text| text.contains("users does not answer"));
    lines.iter().filter(about).filter_map(|line| line["omitted"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_neighbour_that_is_away_under_load_makes_few_lines() {
    let service = Service::start().await;
    let order = service.place().await;
    let url = service.database.url_as(ORDERS_ROLE);
    for via in ["http", "grpc"] {
        let away = format!("http://{}", dev::process::free_address());
        let more =
            [("CUSTOMERS_VIA", via), ("USERS_URL", &away), ("USERS_GRPC_URL", &away), ("DATABASE_QUEUE_TIMEOUT", "20s")];
        let program = Program::start_with(&url, "info", &more).await;
        let client = Client::at(program.address);
        let begun = Instant::now();
        let answers = Arc::new(AtomicUsize::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, path, body) = (client.clone(), format!("/orders/{}", id(&order)), service.order());
            let answers = Arc::clone(&answers);
            clients.spawn(async move {
                loop {
                    let read = client.get(&path).await;
                    // On a busy machine, the database may be too slow for this load.
                    assert!(read.status == 503 || read.expect(200).json()["customer_unavailable"] == true);
                    client.post("/orders").json(&body).await.problem(503, "");
                    answers.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        // However slow the machine is: until there was a load, and a line has told what was left out since the last one.
        dev::wait::until("a load, and lines left out", async || {
            if let Some(ended) = clients.try_join_next() {
                ended.expect("no answer but these");
            }
            answers.load(Ordering::Relaxed) >= LOAD && omitted(&program.lines()) > 0
        })
        .await;
        clients.shutdown().await;
        let seconds = begun.elapsed().as_secs() as usize + 1;
        program.signal("TERM");
        let (_, lines) = program.end().await;
        assert!(lines.len() <= 10 * seconds, "{} lines in {seconds} s: {lines:?}", lines.len());
        assert_eq!(count(&lines, "the circuit breaker opens"), 1, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_parameter_is_logged() {
    let service = Service::start().await;
    let address = service.database.url().split('?').next().expect("an address").to_owned();
    let ssl = "sslmode=verify-full&sslrootcert=/no/s3cret";
    for parameters in ["options=-c%20s3cret%3Dx", "user=s3cret", "dbname=s3cret", ssl, "options=-c%20role%3Ds3cret"] {
        let program = Program::start_with(&format!("{address}?{parameters}"), "trace", &[]).await;
        let client = Client::at(program.address);
        for path in ["/orders", "/health/ready"] {
            let answer = client.get(path).await;
            assert!(matches!(answer.status, 500 | 503), "{parameters}: {answer:?}");
        }
        program.signal("TERM");
        let (_, lines) = program.end().await;
        assert!(!lines.iter().any(|line| line.to_string().contains("s3cret")), "{parameters}: {lines:?}");
        assert!(lines.iter().any(|line| line["error"].is_string()), "{parameters}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_a_traced_request_has_its_trace_and_span() {
    let service = Service::start().await;
    let url = service.database.url_as(ORDERS_ROLE);
    let collector = format!("http://{}", dev::process::free_address());
    let more = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector)];
    let program = Program::start_with(&url, "info,chassis=debug", &more).await;
    let client = Client::at(program.address);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (id, flags) in [("traced", "01"), ("not-traced", "00")] {
        let call = client.get("/orders").header("x-request-id", id);
        call.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-{flags}")).await.expect(200);
    }
    client.get("/orders").header("x-request-id", "root").await.expect(200);
    program.signal("TERM");
    let (_, lines) = program.end().await;
    let ids = |request: &str| {
        let of_request: Vec<_> = lines.iter().filter(|line| line["span"]["request.id"] == request).collect();
        assert!(!of_request.is_empty(), "{request}: {lines:?}");
        let ids = |line: &Value| ["trace.id", "span.id"].map(|id| line["span"][id].as_str().map(str::to_owned));
        let first = ids(of_request[0]);
        assert!(of_request.iter().all(|line| ids(line) == first), "{of_request:?}");
        first
    };
    let [of_trace, span] = ids("traced");
    assert_eq!((of_trace.as_deref(), span.map(|span| span.len())), (Some(trace), Some(16)));
    assert_eq!(ids("not-traced"), [Some(trace.to_owned()), None]);
    assert_eq!(ids("root").map(|id| id.map(|id| id.len())), [Some(32), Some(16)]);
    // It is away: the log says so once.
    assert_eq!(count(&lines, "traces do not reach the collector"), 1, "{lines:?}");
}
