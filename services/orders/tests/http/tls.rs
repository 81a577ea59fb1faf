//! TLS: the real program's connections of clients, and its calls to users.

use std::net::SocketAddr;
use std::time::Duration;

use chassis::tls::{Listener, Serving, TlsConfig};
use clap::Parser;
use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use dev::tls::{Authority, Identity, TlsClient, TlsStream, write};
use dev::wait::until;
use serde_json::Value;
use shared_db::Database;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use users::open_orders::OpenOrders;

use crate::program::Program;
use crate::support::{Service, id, settings};

const CLOSED: &str = "postgres://orders_svc@127.0.0.1:1/none";
const BOTH: &[&str] = &["h2", "http/1.1"];

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("a path").to_owned()
}

/// The program with this identity, and with more variables.
async fn start(folder: &TempDir, identity: &Identity, more: &[(&str, &str)]) -> Program {
    identity.write(folder.path());
    let (cert, key) = (path(folder, "cert.pem"), path(folder, "key.pem"));
    let files = [("TLS_CERT_FILE", &*cert), ("TLS_KEY_FILE", &*key)];
    Program::start_with(CLOSED, "info", &[&files, more].concat()).await
}

/// Asks for liveness; the answer's head and body.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: orders\r\n\r\n").await?;
    let mut read = Vec::new();
    while !read.ends_with(b"}") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        read.extend(&bytes[..count]);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

async fn is_shown(client: &TlsClient, address: SocketAddr, identity: &Identity) -> bool {
    let stream = client.connect(address, BOTH).await.expect("a connection");
    stream.get_ref().1.peer_certificates().expect("certificates")[0] == identity.der()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (first, second) = (authority.issue(), authority.issue());
    let program = start(&folder, &first, &[]).await;
    let client = TlsClient::new(&[&authority], None);
    let mut kept = client.connect(program.address, BOTH).await.expect("a connection");
    assert_eq!(kept.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(ask(&mut kept).await.expect("an answer").starts_with("HTTP/1.1 200 "));
    second.write(folder.path());
    until("the new certificate is shown", async || is_shown(&client, program.address, &second).await).await;
    write(folder.path(), "cert.pem", "no certificate");
    // The file is looked at once a second.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert!(is_shown(&client, program.address, &second).await);
    }
    assert!(ask(&mut kept).await.expect("an answer").starts_with("HTTP/1.1 200 "));
    program.signal("TERM");
    let (code, lines) = program.end().await;
    assert_eq!(code, Some(0));
    let broken: Vec<&Value> = lines.iter().filter(|line| line["error"].to_string().contains("TLS_CERT_FILE")).collect();
    assert_eq!(broken.len(), 1, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_asks_its_own_service_over_tls_and_trusts_its_certificate_alone() {
    let (folder, other, authority) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"), Authority::new());
    let program = start(&folder, &authority.issue(), &[]).await;
    authority.issue().write(other.path());
    for (folder, is_right) in [(&folder, true), (&other, false)] {
        let mut health = std::process::Command::new(env!("CARGO_BIN_EXE_orders"));
        health.args(["health", "--live"]).env_clear().current_dir(folder.path());
        health.env("ORDERS_DATABASE_URL", CLOSED).env("ORDERS_ADDR", program.address.to_string());
        health.env("TLS_CERT_FILE", path(folder, "cert.pem")).env("TLS_KEY_FILE", path(folder, "key.pem"));
        let output = health.output().expect("a program");
        assert_eq!(output.status.code(), Some(i32::from(!is_right)), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_shake_hands_is_let_go_and_holds_up_nobody() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let program = start(&folder, &authority.issue(), &[("HEAD_TIMEOUT", "1s")]).await;
    let client = TlsClient::new(&[&authority], None);
    let mut silent = TcpStream::connect(program.address).await.expect("a connection");
    let mut plain = TcpStream::connect(program.address).await.expect("a connection");
    plain.write_all(b"GET /health/live HTTP/1.1\r\nhost: orders\r\n\r\n").await.expect("sent");
    let mut idle = client.connect(program.address, BOTH).await.expect("a connection");
    let mut read = Vec::new();
    // An alert of TLS, and no answer of HTTP.
    let _ = plain.read_to_end(&mut read).await;
    assert!(!read.starts_with(b"HTTP"), "{read:?}");
    assert_eq!(silent.read(&mut [0]).await.expect("closed"), 0);
    // The time for a head has passed, and this connection has not begun one.
    assert!(ask(&mut idle).await.expect("an answer").starts_with("HTTP/1.1 200 "));
    client.connect(program.address, &["h2"]).await.expect_err("the port speaks HTTP/1.1");
    TlsClient::new(&[&Authority::new()], None).connect(program.address, BOTH).await.expect_err("an unknown authority");
    program.signal("TERM");
    assert_eq!(program.end().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_a_certificate_of_the_authority() {
    let (folder, authority, clients) = (tempfile::tempdir().expect("a folder"), Authority::new(), Authority::new());
    write(folder.path(), "clients.pem", clients.pem());
    let file = path(&folder, "clients.pem");
    let program = start(&folder, &authority.issue(), &[("TLS_CLIENT_CA_FILE", &file)]).await;
    for (own, is_right) in [(None, false), (Some(authority.issue()), false), (Some(clients.issue()), true)] {
        // With TLS 1.3, a client learns of the refusal from its first read.
        let answered = match TlsClient::new(&[&authority], own.as_ref()).connect(program.address, BOTH).await {
            Ok(mut stream) => ask(&mut stream).await,
            Err(error) => Err(error),
        };
        assert_eq!(answered.is_ok(), is_right, "{answered:?}");
    }
}

/// Users in this process, over TLS: the addresses of HTTP and gRPC.
async fn serve_users(database: &TestDatabase, tls: &Serving) -> (String, String) {
    let (http, grpc) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
    let (http, grpc) = (http.expect("a port"), grpc.expect("a port"));
    let url = |listener: &TcpListener| format!("https://{}", listener.local_addr().expect("an address"));
    let urls = (url(&http), url(&grpc));
    let app =
        users::App::new(Database::new(&database.url_as(USERS_ROLE), &settings(10)).expect("a URL"), OpenOrders::local());
    let (http, grpc) = (Listener::new(http, Some(tls.clone())), Listener::new(grpc, Some(tls.clone())));
    let routes = users::grpc::routes(app.clone()).await;
    tokio::spawn(chassis::http::serve::serve(http, users::router(app), std::future::pending(), || {}));
    tokio::spawn(chassis::grpc::serve(grpc, routes, std::future::pending()));
    urls
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    tls: TlsConfig,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_encrypted_and_both_ends_prove_who_they_are() {
    let service = Service::start().await;
    let order = service.place().await;
    let url = service.database.url_as(ORDERS_ROLE);
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    authority.issue().write(folder.path());
    write(folder.path(), "ca.pem", authority.pem());
    write(folder.path(), "other.pem", Authority::new().pem());
    let [cert, key, ca, other] = ["cert.pem", "key.pem", "ca.pem", "other.pem"].map(|name| path(&folder, name));
    let own = [("TLS_CERT_FILE", &*cert), ("TLS_KEY_FILE", &*key)];
    for is_asked in [false, true] {
        let mut arguments = vec!["users", "--tls-cert-file", &cert, "--tls-key-file", &key];
        if is_asked {
            arguments.extend(["--tls-client-ca-file", &ca]);
        }
        let tls = Options::parse_from(arguments).tls.serving().expect("files").expect("TLS");
        let (http, grpc) = serve_users(&service.database, &tls).await;
        for via in ["http", "grpc"] {
            for (trusted, shown, is_right) in [(&ca, true, true), (&ca, false, !is_asked), (&other, true, false)] {
                let more =
                    [("CUSTOMERS_VIA", via), ("USERS_URL", &http), ("USERS_GRPC_URL", &grpc), ("TLS_CA_FILE", trusted)];
                let more = [&more[..], if shown { &own } else { &[] }].concat();
                let program = Program::start_with(&url, "error", &more).await;
                let read = if shown {
                    let mut stream = TlsClient::new(&[&authority], None).connect(program.address, BOTH).await.expect("TLS");
                    get(&mut stream, &format!("/orders/{}", id(&order))).await
                } else {
                    Client::at(program.address).get(format!("/orders/{}", id(&order))).await.expect(200).json()
                };
                assert_eq!(read["customer"].is_object(), is_right, "{via} {trusted} {shown} {is_asked}: {read}");
            }
        }
    }
}

/// The JSON of the answer to `GET path`.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> Value {
    let head = format!("GET {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.expect("an answer");
    let text = String::from_utf8_lossy(&read).into_owned();
    serde_json::from_str(text.split_once("\r\n\r\n").expect("a head").1).unwrap_or_else(|error| panic!("{error}: {text}"))
}
