//! Requests byte by byte, as RFC 9110, 9112 and 9457 have them, and what the real program answers.

use std::time::Duration;

use dev::http::Client;

use crate::connections::{ask, connect, start};

/// What is answered: a status with a problem, without a body, or a success.
#[derive(Clone, Copy)]
enum Answer {
    Problem(u16),
    Bare(u16),
    Fine(u16),
}
use Answer::{Bare, Fine, Problem};

const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: users\r\n";
const LIST: &str = "GET /users?limit=0 HTTP/1.1\r\nhost: users\r\n";
const POST: &str = "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\n";

/// Each request with the section it is about. `{}` lacks fields, so a body that is read is answered 422.
const TABLE: &[(&str, &[&str], Answer)] = &[
    ("9112 2.2, an empty line before", &["\r\n", LIVE, "\r\n"], Fine(200)),
    ("9112 2.3, version 1.0 without a host", &["GET /health/live HTTP/1.0\r\n\r\n"], Fine(200)),
    ("9112 2.3, no version", &["GET /health/live HTTP\r\nhost: users\r\n\r\n"], Bare(400)),
    ("9112 3.1, a method in lower case", &["get /health/live HTTP/1.1\r\nhost: users\r\n\r\n"], Problem(405)),
    ("9112 3.1, no method", &["G{T /health/live HTTP/1.1\r\nhost: users\r\n\r\n"], Bare(400)),
    ("9112 3.2.1, no path", &["GET health/live HTTP/1.1\r\nhost: users\r\n\r\n"], Bare(400)),
    ("9112 3.2.1, a space in the target", &["GET /health/ live HTTP/1.1\r\nhost: users\r\n\r\n"], Bare(400)),
    ("9112 3.2.2, a whole URL", &["GET http://users:80/health/live HTTP/1.1\r\nhost: users:80\r\n\r\n"], Fine(200)),
    ("9112 3.2.2, of another scheme", &["GET ftp://users/health/live HTTP/1.1\r\nhost: users\r\n\r\n"], Problem(400)),
    ("9112 3.2.3, an authority", &["CONNECT users:80 HTTP/1.1\r\nhost: users:80\r\n\r\n"], Problem(400)),
    ("9112 3.2.4, an asterisk", &["OPTIONS * HTTP/1.1\r\nhost: users\r\n\r\n"], Problem(400)),
    ("9112 3.2, no host", &["GET /health/live HTTP/1.1\r\n\r\n"], Problem(400)),
    ("9112 3.2, two hosts", &[LIVE, "host: users\r\n\r\n"], Problem(400)),
    ("9112 3.2, a host that is none", &["GET /health/live HTTP/1.1\r\nhost: us/ers\r\n\r\n"], Problem(400)),
    ("9112 5.1, a space before the colon", &[LIVE, "accept : */*\r\n\r\n"], Bare(400)),
    ("9112 5.2, a folded field", &[LIVE, "accept: a,\r\n b\r\n\r\n"], Bare(400)),
    ("9110 5.5, a NUL in a field", &[LIVE, "accept: \0\r\n\r\n"], Bare(400)),
    ("9112 6.1, chunked", &[POST, "transfer-encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], Problem(422)),
    ("9112 6.1, another coding", &[POST, "transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], Problem(400)),
    ("9112 6.1, chunked twice", &[POST, "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"], Problem(400)),
    (
        "9112 6.1, chunked in two fields",
        &[POST, "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n"],
        Problem(400),
    ),
    ("9112 6.1, chunked hidden", &[POST, "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"], Bare(400)),
    ("9112 6.1, not chunked", &[POST, "transfer-encoding: identity\r\ncontent-length: 2\r\n\r\n{}"], Bare(400)),
    (
        "9112 6.1, chunked in version 1.0",
        &["POST /users HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        Bare(400),
    ),
    ("9112 6.3, two lengths", &[POST, "content-length: 2\r\ncontent-length: 3\r\n\r\n{}"], Bare(400)),
    ("9112 6.3, one length twice", &[POST, "content-length: 2\r\ncontent-length: 2\r\n\r\n{}"], Problem(422)),
    ("9112 6.3, a length with a sign", &[POST, "content-length: +2\r\n\r\n{}"], Bare(400)),
    ("9112 7.1, a chunk without a size", &[POST, "transfer-encoding: chunked\r\n\r\nx\r\n{}\r\n0\r\n\r\n"], Problem(400)),
    ("9110 8.4, a coded body", &[POST, "content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"], Problem(415)),
    ("9110 8.4, identity", &[POST, "content-encoding: identity\r\ncontent-length: 2\r\n\r\n{}"], Problem(422)),
    ("9110 9.3.2, a head", &["HEAD /health/live HTTP/1.1\r\nhost: users\r\n\r\n"], Fine(200)),
    ("9110 10.1.1, an expectation, before the body", &[POST, "expect: tea\r\ncontent-length: 2\r\n\r\n"], Problem(417)),
    ("9110 10.1.1, to go on", &[POST, "expect: 100-Continue\r\ncontent-length: 2\r\n\r\n"], Fine(100)),
    ("9110 13.1.1, what has no tag", &[LIVE, "if-match: \"1\"\r\n\r\n"], Problem(412)),
    ("9110 13.1.2, what is there", &[LIVE, "if-none-match: *\r\n\r\n"], Fine(304)),
    ("9110 13.1.2, on a change", &[POST, "if-none-match: *\r\ncontent-length: 2\r\n\r\n{}"], Problem(412)),
    ("9110 13.2.1, what is wrong without it, too", &[LIST, "if-none-match: *\r\n\r\n"], Problem(400)),
    ("9110 13.2.1, what is wrong without it, too", &[LIST, "if-match: \"1\"\r\n\r\n"], Problem(400)),
    (
        "9110 15.5.16, a text, before the precondition",
        &["POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: text/plain\r\n", "if-match: \"1\"\r\n\r\n"],
        Problem(415),
    ),
    ("9110 13.1.3, a date", &[LIVE, "if-modified-since: Fri, 01 Jan 2100 00:00:00 GMT\r\n\r\n"], Fine(200)),
    ("9110 13.1.4, a date", &[LIVE, "if-unmodified-since: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"], Fine(200)),
    (
        "9110 15.5.5, no such path, before the precondition",
        &["GET /none HTTP/1.1\r\nhost: users\r\nif-match: \"1\"\r\n\r\n"],
        Problem(404),
    ),
    (
        "9110 15.5.6, no such method, before the coding",
        &["PUT /users HTTP/1.1\r\nhost: users\r\ncontent-encoding: gzip\r\n\r\n"],
        Problem(405),
    ),
];

fn assert_answer(about: &str, head: &str, expected: Answer) {
    let (Problem(status) | Bare(status) | Fine(status)) = expected;
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")) || head.starts_with(&format!("HTTP/1.0 {status} ")),
        "{about}: {head}"
    );
    let is_problem = head.contains("content-type: application/problem+json");
    assert_eq!(is_problem, matches!(expected, Problem(_)), "{about}: {head}");
    if matches!(expected, Bare(_)) {
        assert!(head.contains("content-length: 0"), "{about}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_taken_as_the_rfcs_have_it() {
    let program = start(&[]).await;
    for (about, request, expected) in TABLE {
        let head = ask(&mut connect(&program), request.concat().as_bytes());
        assert_answer(about, &head, *expected);
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: users\r\n\r\n", "x".repeat(70_000));
    assert_answer("9110 15.5.15", &ask(&mut connect(&program), long.as_bytes()), Bare(414));
    let many = format!("{LIVE}{}\r\n", "x: y\r\n".repeat(200));
    assert_answer("RFC 6585 5", &ask(&mut connect(&program), many.as_bytes()), Bare(431));

    // What has no answer of the service's own is counted.
    let bare = TABLE.iter().filter(|(.., expected)| matches!(expected, Bare(_))).count();
    let client = Client::at(program.address);
    for (reason, number) in [("malformed", bare), ("too large", 2)] {
        let counted = format!("http_requests_unreadable_total{{reason=\"{reason}\"}} {number}");
        dev::wait::until(&counted, async || client.get("/metrics").await.text().contains(&counted)).await;
    }
}

/// Of two ways to say where a body ends, the program takes `chunked`, and no rest becomes a request.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_body_is_no_request_in_disguise() {
    let program = start(&[]).await;
    let hidden = "GET /metrics HTTP/1.1\r\nhost: users\r\n\r\n";
    for lengths in
        ["content-length: 200\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"]
    {
        let mut stream = connect(&program);
        let head = ask(&mut stream, format!("{POST}{lengths}\r\n2\r\n{{}}\r\n0\r\n\r\n").as_bytes());
        assert_answer(lengths, &head, Problem(422));
    }
    // Refused before the body: what the client sends of it is not taken for the next request.
    let mut stream = connect(&program);
    let refused = format!("{POST}transfer-encoding: gzip, chunked\r\n\r\n{hidden}");
    assert_answer("a refused body", &ask(&mut stream, refused.as_bytes()), Problem(400));
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a stream");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}
