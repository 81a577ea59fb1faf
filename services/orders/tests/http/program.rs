//! The real program: its variables, its log, its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use dev::http::Client;
use dev::postgres::ORDERS_ROLE;
use dev::process::free_address;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Service, next, sessions};

const URL: (&str, &str) = ("ORDERS_DATABASE_URL", "postgres://orders_svc:secret@127.0.0.1:1/none");

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The program in this folder, with these variables and no others.
fn command(folder: &TempDir, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().envs(variables.iter().copied()).current_dir(folder.path());
    command
}

/// Runs the program, which must end by itself.
fn run(folder: &TempDir, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    command(folder, variables).args(arguments).output().expect("the program runs")
}

/// The claim that the program ends because of this variable, and says so in one sentence.
#[track_caller]
fn assert_ended_by(variable: &str, output: &Output) {
    let (stdout, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stdout), (Some(2), ""), "{said}");
    assert!(said.starts_with("error: ") && said.contains(variable), "{variable}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_missing_or_malformed_variable_ends_the_program_with_one_sentence_that_names_it() {
    let folder = folder();
    assert_ended_by("ORDERS_DATABASE_URL", &run(&folder, &[], &[]));
    assert_ended_by("ORDERS_DATABASE_URL", &run(&folder, &[], &["rebuild"]));
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let in_use = holder.local_addr().expect("its address").to_string();
    for (variable, value) in [
        ("ORDERS_DATABASE_URL", ""),
        ("ORDERS_DATABASE_URL", "localhost:5432"),
        ("ORDERS_DATABASE_URL", "postgres://orders_svc@127.0.0.1/none?connect_timeout=secret"),
        ("ORDERS_DATABASE_URL", "mysql://orders_svc:secret@127.0.0.1/none"),
        ("ORDERS_DATABASE_URL", "postgres://orders_svc:secret@127.0.0.1:port/none"),
        ("ORDERS_DATABASE_URL", "postgres://orders_svc:1?secret=x@127.0.0.1/none"),
        ("ORDERS_DATABASE_NEXT_URL", ""),
        ("ORDERS_DATABASE_NEXT_URL_FILE", "/no/such/file"),
        ("ORDERS_DATABASE_NEXT_URL", "postgres://orders_svc:secret@127.0.0.1:port/orders"),
        ("ORDERS_DATABASE_READ_URL", ""),
        ("ORDERS_DATABASE_READ_URL", "postgres://orders_svc:secret@127.0.0.1,127.0.0.1:port/orders"),
        ("READ_MAX_LAG", "soon"),
        ("ORDERS_ADDR", "8082"),
        ("ORDERS_ADDR", "localhost:8082"),
        ("ORDERS_ADDR", "127.0.0.1:70000"),
        ("ORDERS_ADDR", &in_use),
        ("CUSTOMERS_VIA", ""),
        ("CUSTOMERS_VIA", "pigeon"),
        ("CUSTOMERS_SHADOW", "pigeon"),
        ("EVENTS_VIA", "pigeon"),
        ("EVENTS_VIA", "kafka"),
        ("KAFKA_BROKERS", "kafka"),
        ("EVENTS_VIA", "rabbitmq"),
        ("RABBITMQ_URL", "http://user:secret@host"),
        ("RABBITMQ_URL", "amqp://user:secret@host"),
        ("RABBITMQ_MAX_AGE", "old"),
        ("USERS_URL", "http://users/path"),
        ("USERS_GRPC_URL", "https://users/path"),
        ("USERS_URL", "ftp://users"),
        ("TLS_CERT_FILE", "/no/such/file"),
        ("TLS_KEY_FILE", "/no/such/file"),
        ("TLS_CLIENT_CA_FILE", "/no/such/file"),
        ("DATABASE_MAX_CONNECTIONS", "0"),
        ("DATABASE_MAX_CONNECTIONS", "ten"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "orders=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://me:secret@collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_RESOURCE_ATTRIBUTES", "prod"),
        ("OTEL_TRACES_SAMPLER", "often"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_SDK_DISABLED", "perhaps"),
    ] {
        assert_ended_by(variable, &run(&folder, &[URL, (variable, value)], &[]));
    }
}

#[test]
fn an_unknown_parameter_is_named_and_its_value_is_not() {
    let folder = folder();
    for variable in ["ORDERS_DATABASE_URL", "ORDERS_DATABASE_NEXT_URL", "ORDERS_DATABASE_READ_URL"] {
        let url = (variable, "postgres://orders_svc@127.0.0.1/none?sslmode=disable&target_session_attrs=secret");
        let output = run(&folder, &[URL, url], &[]);
        assert_ended_by(variable, &output);
        assert!(String::from_utf8_lossy(&output.stderr).contains("`target_session_attrs`"), "{output:?}");
    }
}

#[test]
fn a_url_is_in_a_variable_or_in_a_file_and_not_in_both() {
    let folder = folder();
    let file = folder.path().join("url");
    let path = file.to_str().expect("a path");
    std::fs::write(&file, "mysql://orders_svc:secret@127.0.0.1/none").expect("written");
    assert_ended_by("ORDERS_DATABASE_URL_FILE must start with", &run(&folder, &[("ORDERS_DATABASE_URL_FILE", path)], &[]));
    for name in ["ORDERS_DATABASE_URL", "ORDERS_DATABASE_NEXT_URL", "ORDERS_DATABASE_READ_URL"] {
        let both = format!("{name} and {name}_FILE are both set");
        let file = format!("{name}_FILE");
        assert_ended_by(&both, &run(&folder, &[URL, (name, URL.1), (&file, path)], &[]));
    }
}

#[test]
fn the_file_env_is_read_and_the_environment_comes_first() {
    let folder = folder();
    let write = |lines: &str| std::fs::write(folder.path().join(".env"), lines).expect("a file");
    write("# comment\nORDERS_DATABASE_URL=mysql://from:secret@the.file/\nDATABASE_MAX_CONNECTIONS='0'\n");
    assert_ended_by("DATABASE_MAX_CONNECTIONS", &run(&folder, &[], &[]));
    let connections = ("DATABASE_MAX_CONNECTIONS", "5");
    assert_ended_by("ORDERS_DATABASE_URL", &run(&folder, &[connections], &[]));
    assert_ended_by("ORDERS_ADDR", &run(&folder, &[connections, URL, ("ORDERS_ADDR", "nowhere")], &[]));
    write("ORDERS_DATABASE_URL postgres://orders_svc:secret@host/database\n");
    assert_ended_by(".env", &run(&folder, &[], &[]));
}

#[test]
fn help_lists_every_variable_that_is_read() {
    let folder = folder();
    for variables in [&[][..], &[URL, ("ORDERS_DATABASE_NEXT_URL", URL.1)]] {
        let output = run(&folder, variables, &["--help"]);
        let help = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{help}");
        let names = [
            "ORDERS_DATABASE_URL",
            "ORDERS_DATABASE_NEXT_URL",
            "ORDERS_DATABASE_URL_FILE",
            "ORDERS_DATABASE_NEXT_URL_FILE",
            "ORDERS_DATABASE_READ_URL",
            "ORDERS_DATABASE_READ_URL_FILE",
            "READ_MAX_LAG",
            "ORDERS_ADDR",
            "CUSTOMERS_VIA",
            "CUSTOMERS_SHADOW",
            "EVENTS_VIA",
            "KAFKA_BROKERS",
            "RABBITMQ_URL",
            "RABBITMQ_URL_FILE",
            "RABBITMQ_CA_FILE",
            "RABBITMQ_MAX_AGE",
            "RABBITMQ_MAX_BYTES",
            "USERS_URL",
            "USERS_GRPC_URL",
            "USERS_GRPC_ADDR",
            "TLS_CERT_FILE",
            "TLS_KEY_FILE",
            "TLS_CLIENT_CA_FILE",
            "TLS_CA_FILE",
            "DATABASE_MAX_CONNECTIONS",
            "LOG_FORMAT",
            "RUST_LOG",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_TRACES_SAMPLER",
            "OTEL_SERVICE_NAME",
        ];
        for name in names.into_iter().chain(["127.0.0.1:8082", "local", "10", "info", "rebuild"]) {
            assert!(help.contains(name), "{name} in {help}");
        }
        assert!(!help.contains("secret@"), "{help}");
    }
    let output = run(&folder, &[], &["rebuild", "--help"]);
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(0) && help.contains("--check") && help.contains("--format"), "{help}");
}

/// The program, serving.
pub struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    /// Reads the log to its end.
    reader: Option<JoinHandle<()>>,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Program {
    /// Starts it on a free port, and waits until it listens.
    pub async fn start(database_url: &str, log: &str) -> Self {
        Self::start_with(database_url, log, &[]).await
    }

    /// The same with more variables.
    pub async fn start_with(database_url: &str, log: &str, more: &[(&str, &str)]) -> Self {
        loop {
            let folder = folder();
            let address = free_address();
            let text = address.to_string();
            let variables = [("ORDERS_DATABASE_URL", database_url), ("ORDERS_ADDR", &text), ("RUST_LOG", log)];
            let variables = [&variables, more].concat();
            let mut child = command(&folder, &variables).stderr(Stdio::piped()).spawn().expect("the program starts");
            let stderr = BufReader::new(child.stderr.take().expect("piped"));
            let lines = Arc::new(Mutex::new(Vec::new()));
            let read = Arc::clone(&lines);
            let reader = std::thread::spawn(move || {
                for line in stderr.lines() {
                    let line = line.expect("text");
                    let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
                    read.lock().expect("no panic").push(line);
                }
            });
            let mut program = Self { child, lines, reader: Some(reader), address, _folder: folder };
            // It ends if somebody else was faster to take the port.
            while program.child.try_wait().expect("its state").is_none() {
                if TcpStream::connect(address).is_ok() {
                    return program;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits for its end: its exit code, and the lines of its log.
    pub async fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let ended = loop {
            match self.child.try_wait().expect("its state") {
                Some(ended) => break ended,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self.reader.take().expect("one end").join().expect("its log");
        (ended.code(), self.lines())
    }

    /// The lines of its log so far.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().expect("no panic").clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that failed leaves nothing running. One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads from the connection until `end` has come.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("an answer");
        assert!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_signal_ends_the_program_once_what_is_under_way_is_answered() {
    for signal in ["TERM", "INT"] {
        let service = Service::start().await;
        let mut program = Program::start(&service.database.url_as(ORDERS_ROLE), "error").await;
        let address = program.address;

        // One request waits for news: it has looked for them in the database.
        let reading = tokio::spawn(Client::at(address).get("/events?wait=30").into_future());
        let mut owner = service.database.owner().await;
        let looked = "application_name = 'orders' and query like '%pg_snapshot_xmin%'";
        while sessions(&mut owner, looked).await == 0 {
            assert!(!reading.is_finished(), "it did not wait");
        }
        // Another one is half sent: the service has asked for the rest.
        let body = service.order().to_string();
        let mut placing = TcpStream::connect(address).expect("a connection");
        let head = format!(
            "POST /orders HTTP/1.1\r\nhost: orders\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            body.len(),
        );
        placing.write_all(head.as_bytes()).expect("sent");
        assert!(read_until(&mut placing, "\r\n\r\n").starts_with("HTTP/1.1 100 "));

        program.signal(signal);
        while TcpStream::connect(address).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Who waits for news is told at once where to go on.
        let read = reading.await.expect("an answer").expect(200);
        assert_eq!((read.json(), next(&read).is_some()), (json!([]), true));
        assert!(program.child.try_wait().expect("its state").is_none(), "a request is still under way");
        placing.write_all(body.as_bytes()).expect("sent");
        assert!(read_until(&mut placing, "\"version\":1}").starts_with("HTTP/1.1 201 "));
        assert_eq!(program.end().await, (Some(0), Vec::new()));
        assert_eq!(service.rows().await, [1, 1, 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_names_the_request_and_its_trace_and_the_cause_of_a_failure() {
    let program = Program::start(URL.1, "info,chassis=debug").await;
    let client = Client::at(program.address);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = client.get("/orders").header("x-request-id", "the-id");
    call.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")).await.problem(503, "");
    program.signal("TERM");
    let (code, lines) = program.end().await;
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.to_string().contains("secret")), "{lines:?}");
    let of_request: Vec<_> = lines.iter().filter(|line| line["span"]["request.id"] == "the-id").collect();
    let failures: Vec<_> = of_request.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(failures.len(), 1, "{of_request:?}");
    assert_eq!((&failures[0]["span"]["trace.id"], &failures[0]["span"]["route"]), (&json!(trace), &json!("/orders")));
    assert!(failures[0]["error"].as_str().is_some_and(|error| error.contains("refused")), "{failures:?}");
}
