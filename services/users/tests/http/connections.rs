//! The real program, and clients that ask nothing, read nothing, or are too many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dev::http::Client;
use dev::postgres::{TestDatabase, USERS_ROLE};
use dev::wait::until;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::operations::closed_url;
use crate::program::{PATIENCE, Program, read_until};

const LIVE: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: users\r\n\r\n";
/// Far less than what the program waits for: 20 s for work under way, 30 s for news.
const SOON: Duration = Duration::from_secs(10);
const HALF: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: us";

/// The program without a database, with these limits.
pub async fn start(limits: &[(&str, &str)]) -> Program {
    let url = closed_url();
    Program::start(&[limits, &[("USERS_DATABASE_URL", &url)]].concat()).await
}

pub fn connect(program: &Program) -> TcpStream {
    TcpStream::connect(program.address).expect("a connection")
}

/// The head of the answer to `request`; empty if the connection is closed.
pub fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    // The connection may be closed already.
    let _ = stream.write_all(request);
    stream.set_read_timeout(Some(PATIENCE)).expect("a stream");
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        read.extend(byte);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_program_does_not_wait_for_those_who_ask_nothing() {
    let mut program = start(&[]).await;
    let mut idle = connect(&program);
    idle.write_all(LIVE).expect("sent");
    read_until(&mut idle, "\"ok\"");
    let _silent = connect(&program);
    let mut half = connect(&program);
    half.write_all(HALF).expect("sent");
    // The half has arrived: what was sent after it has been answered.
    Client::at(program.address).get("/health/live").await.expect(200);
    let stopped = Instant::now();
    program.signal("TERM");
    let (status, log) = program.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(stopped.elapsed() < SOON, "{:?}", stopped.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_program_answers_who_waits_and_ends_soon() {
    let database = TestDatabase::create();
    let mut program = Program::start(&[("USERS_DATABASE_URL", &database.url_as(USERS_ROLE))]).await;
    program.until_ready().await;
    let client = Client::at(program.address);
    client.get("/users").await.expect(200);
    let mut half = connect(&program);
    half.write_all(HALF).expect("sent");
    let channel = Channel::from_shared(format!("http://{}", program.grpc_address)).expect("a URI");
    let mut health = HealthClient::new(channel.connect().await.expect("a connection"));
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("a stream").into_inner();
    watch.message().await.expect("news").expect("a status");
    let waiting = crate::support::start(client.get("/events?wait=30"));
    let looks = "select exists (select from pg_stat_activity
                               where datname = current_database() and query like '%order by epoch desc%'
                                 and pid <> pg_backend_pid())";
    dev::postgres::until(&mut database.owner().await, looks).await;
    let stopped = Instant::now();
    program.signal("TERM");
    let (status, log) = program.end().await;
    let took = stopped.elapsed();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took < SOON, "{took:?}: {log}");
    waiting.await.expect("an answer").expect(200);
    while watch.message().await.is_ok_and(|more| more.is_some()) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_program_waits_for_work_but_not_for_ever() {
    let mut program = start(&[("BODY_TIMEOUT", "5m")]).await;
    let mut upload = connect(&program);
    let head = "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    upload.write_all(head.as_bytes()).expect("sent");
    Client::at(program.address).get("/health/live").await.expect(200);
    let stopped = Instant::now();
    program.signal("TERM");
    let (status, log) = program.end().await;
    let took = stopped.elapsed();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!((Duration::from_secs(20)..Duration::from_secs(40)).contains(&took), "{took:?}: {log}");
    assert!(log.contains("stopped with requests unanswered"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_in_time_is_answered_408() {
    let program = start(&[("BODY_TIMEOUT", "300ms")]).await;
    let mut upload = connect(&program);
    let head = "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    let answer = ask(&mut upload, head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_has_a_time_of_its_own_and_its_connection_is_kept() {
    let program = start(&[("HEAD_TIMEOUT", "300ms")]).await;
    let mut upload = connect(&program);
    let body = r#"{"email":"jane@example.org","name":"Jane"}"#;
    let (first, rest) = body.split_at(10);
    let head = "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\n";
    upload.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).expect("sent");
    for piece in [first, rest] {
        tokio::time::sleep(Duration::from_millis(600)).await;
        upload.write_all(piece.as_bytes()).expect("sent");
    }
    // There is no database.
    read_until(&mut upload, "HTTP/1.1 503 ");
    tokio::time::sleep(Duration::from_millis(600)).await;
    upload.write_all(LIVE).expect("sent");
    read_until(&mut upload, "\"ok\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_connected_before_the_stop_and_is_accepted_after_it_holds_nothing_up() {
    let mut program = start(&[]).await;
    // The program wakes with the connections and the signal at once, and finds the one or the other first.
    program.signal("STOP");
    let mut early: Vec<_> = (0..3).map(|_| connect(&program)).collect();
    for stream in &mut early {
        stream.write_all(LIVE).expect("sent");
    }
    program.signal("TERM");
    let stopped = Instant::now();
    program.signal("CONT");
    for stream in &mut early {
        read_until(stream, "\"ok\"");
    }
    assert_eq!(program.end().await.0.code(), Some(0));
    assert!(stopped.elapsed() < SOON, "{:?}", stopped.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_the_program_answers_and_is_not_ready() {
    let database = TestDatabase::create();
    let url = database.url_as(USERS_ROLE);
    let mut program = Program::start(&[("USERS_DATABASE_URL", &url), ("SHUTDOWN_DELAY", "3s")]).await;
    program.until_ready().await;
    let client = Client::at(program.address);
    program.signal("TERM");
    until("it is not ready", async || client.get("/health/ready").await.status == 503).await;
    client.get("/users").await.expect(200);
    client.get("/health/live").await.expect(200);
    assert_eq!(program.end().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_or_sends_no_head_is_let_go() {
    let program = start(&[("WRITE_TIMEOUT", "300ms"), ("HEAD_TIMEOUT", "300ms")]).await;
    // More than the buffers of both sides take.
    let mut deaf = connect(&program);
    deaf.write_all(&b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: users\r\n\r\n".repeat(30)).expect("sent");
    let mut half = connect(&program);
    half.write_all(HALF).expect("sent");
    until("who reads nothing is let go", async || deaf.write_all(b"x").is_err()).await;
    half.set_read_timeout(Some(PATIENCE)).expect("a stream");
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).expect("the connection is closed");
    // Between requests, a connection is kept for longer.
    let mut idle = connect(&program);
    for _ in 0..2 {
        idle.write_all(LIVE).expect("sent");
        read_until(&mut idle, "\"ok\"");
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_after_a_while() {
    const KEPT: Duration = Duration::from_secs(2);
    let program = start(&[("KEEP_ALIVE", "2s")]).await;
    let mut silent = connect(&program);
    let mut used = connect(&program);
    let mut last = Instant::now();
    for _ in 0..3 {
        last = Instant::now();
        used.write_all(LIVE).expect("sent");
        read_until(&mut used, "\"ok\"");
        // Each request gives the connection its full time again.
        tokio::time::sleep(KEPT / 2).await;
    }
    for stream in [&mut silent, &mut used] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a stream");
        assert_eq!(stream.read(&mut [0]).expect("the connection is closed"), 0);
    }
    assert!(last.elapsed() >= KEPT, "{:?}", last.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limits_are_told_to_come_back() {
    let program = start(&[("MAX_CONNECTIONS", "3"), ("MAX_CONNECTIONS_PER_ADDRESS", "2")]).await;
    let mut served = Vec::new();
    // The connection of the start may still count.
    until("two are served", async || {
        served = vec![connect(&program), connect(&program)];
        served.iter_mut().all(|stream| ask(stream, LIVE).starts_with("HTTP/1.1 200 "))
    })
    .await;
    let refused = ask(&mut connect(&program), b"");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    served.clear();
    until("a place is free", async || ask(&mut connect(&program), LIVE).starts_with("HTTP/1.1 200 ")).await;
}

/// RFC 9112 §3.2.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_host_is_a_problem() {
    let program = start(&[]).await;
    let refused = ask(&mut connect(&program), b"GET /health/live HTTP/1.1\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("application/problem+json"), "{refused}");
    let old = ask(&mut connect(&program), b"GET /health/live HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
    let absolute = ask(&mut connect(&program), b"GET http://users/health/live HTTP/1.1\r\nhost: users\r\n\r\n");
    assert!(absolute.starts_with("HTTP/1.1 200 "), "{absolute}");
}

/// One header of an answer's head; empty if it is not there.
fn header(head: &str, name: &str) -> String {
    let of_name = |line: &str| line.split_once(": ").filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
    head.lines().find_map(of_name).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_above_the_rate_is_told_when_to_come_back() {
    const NOTHING: &[u8] = b"GET /nothing HTTP/1.1\r\nhost: users\r\nconnection: close\r\n\r\n";
    // The rate of an hour, so that a slow machine earns no further request.
    let program = start(&[("RATE_LIMIT", "2/h")]).await;
    for left in ["r=1;t=1800", "r=0;t=3600"] {
        let head = ask(&mut connect(&program), NOTHING);
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert_eq!(header(&head, "ratelimit-policy"), "\"default\";q=2;w=3600");
        assert_eq!(header(&head, "ratelimit"), format!("\"default\";{left}"));
        assert_eq!(header(&head, "retry-after"), "");
    }
    let refused = ask(&mut connect(&program), NOTHING);
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("application/problem+json"), "{refused}");
    assert_eq!(header(&refused, "ratelimit"), "\"default\";r=0;t=3600");
    let wait: u32 = header(&refused, "retry-after").parse().expect("seconds");
    assert!((1500..=1800).contains(&wait), "{wait}");
    // Balancers ask often.
    for _ in 0..5 {
        let head = ask(&mut connect(&program), LIVE);
        assert!(head.starts_with("HTTP/1.1 200 ") && header(&head, "ratelimit-policy").is_empty(), "{head}");
    }
    let free = start(&[]).await;
    assert_eq!(header(&ask(&mut connect(&free), NOTHING), "ratelimit-policy"), "");
}

/// Whether the server has closed the connection. It may send bytes before.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a stream");
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_connections_above_the_limits_or_without_a_beginning_are_closed() {
    // As every connection begins: RFC 9113 §3.4, with empty settings.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let limits = chassis::http::limits::Limits {
        max_grpc_connections: 3,
        max_grpc_connections_per_address: 2,
        head_timeout: Duration::from_millis(500),
        ..Default::default()
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = users::grpc::routes(crate::support::app(&closed_url(), &crate::support::settings())).await;
    tokio::spawn(async move { chassis::grpc::serve_within(&limits, listener, routes, std::future::pending()).await });
    let begin = || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let _ = stream.write_all(PREFACE);
        stream
    };
    let (mut first, mut second) = (begin(), begin());
    until("the third is closed", async || is_closed(&mut begin())).await;
    assert!(!is_closed(&mut first) && !is_closed(&mut second));
    drop((first, second));
    let mut silent = TcpStream::connect(address).expect("a connection");
    let mut half = TcpStream::connect(address).expect("a connection");
    // The places may not be free yet; then it is closed at once.
    let _ = half.write_all(&PREFACE[..10]);
    until("who does not begin is let go", async || is_closed(&mut silent) && is_closed(&mut half)).await;
    let mut begun = begin();
    until("a place is free", async || {
        begun = begin();
        !is_closed(&mut begun)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!is_closed(&mut begun), "it may be idle once it has begun");
}
