//! The real program: its variables, its log, its end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dev::http::Client;
use dev::postgres::{TestDatabase, USERS_ROLE};
use dev::process::free_address;
use dev::wait::until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::operations::closed_url;
use crate::support::{number, person};

/// Longer than anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these variables and no others, in this directory.
fn command(directory: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_users"));
    command.env_clear().envs(variables.iter().copied()).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program, started in an empty directory.
pub struct Program {
    child: Child,
    log: Option<JoinHandle<String>>,
    pub address: SocketAddr,
    pub grpc_address: SocketAddr,
    _directory: TempDir,
}

impl Program {
    /// Starts it, and waits until it listens.
    pub async fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), variables).await
    }

    async fn start_in(directory: TempDir, variables: &[(&str, &str)]) -> Self {
        // Free now; if somebody else is faster, the program stops and others are tried.
        let (address, grpc_address) = (free_address(), free_address());
        let own = [("USERS_ADDR", &*address.to_string()), ("USERS_GRPC_ADDR", &grpc_address.to_string())];
        let mut child = command(directory.path(), &[variables, &own].concat()).spawn().expect("a program");
        let mut stderr = child.stderr.take().expect("piped");
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).expect("text");
            log
        });
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if child.try_wait().expect("a child").is_some() {
                let log = log.join().expect("a log");
                assert!(log.contains("is in use"), "{log}");
                return Box::pin(Self::start_in(directory, variables)).await;
            }
            assert!(started.elapsed() < PATIENCE, "it does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { child, log: Some(log), address, grpc_address, _directory: directory }
    }

    /// Waits until it is ready.
    pub async fn until_ready(&self) {
        let client = Client::at(self.address);
        until("the program is ready", async || client.is_ready().await).await;
    }

    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits for its end; what it has logged until then.
    pub async fn end(&mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.log.take().expect("not ended before").join().expect("a log"));
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads until `end` has come.
pub fn read_until(stream: &mut TcpStream, end: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a stream");
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("an answer");
        assert!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_the_program_once_what_is_under_way_is_answered() {
    for signal in ["TERM", "INT"] {
        let database = TestDatabase::create();
        let mut program = Program::start(&[("USERS_DATABASE_URL", &database.url_as(USERS_ROLE))]).await;
        let client = Client::at(program.address);
        program.until_ready().await;

        // A request of which the service has begun to read the body: it asks for it.
        let body = person("ada").to_string();
        let mut upload = TcpStream::connect(program.address).expect("a connection");
        let head = format!(
            "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            body.len()
        );
        upload.write_all(head.as_bytes()).expect("sent");
        assert!(read_until(&mut upload, "\r\n\r\n").starts_with("HTTP/1.1 100 "));
        // And one that waits for events.
        let waiting = tokio::spawn(client.get("/events?wait=30").into_future());
        let mut owner = database.owner().await;
        let asked = "select count(*) from pg_stat_activity
                     where datname = current_database() and query like '%pg_snapshot_xmin%' and pid <> pg_backend_pid()";
        while number(&mut owner, asked).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        program.signal(signal);
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("not when its 30 seconds are over");
        assert_eq!(waited.expect("an answer").expect(200).json(), json!([]));
        while TcpStream::connect(program.address).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Longer than an idle connection is kept.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(program.child.try_wait().expect("a child").is_none(), "a request is still under way");
        upload.write_all(body.as_bytes()).expect("sent");
        assert!(read_until(&mut upload, "\"version\":1").starts_with("HTTP/1.1 201 "));
        let (status, log) = program.end().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(number(&mut owner, "select count(*) from users").await, 1);
    }
}

/// Runs the program, which must stop by itself.
fn run(variables: &[(&str, &str)]) -> Output {
    let directory = TempDir::new().expect("a directory");
    command(directory.path(), variables).output().expect("a program")
}

/// The claim that the program stops because of this variable, and says so in one sentence.
#[track_caller]
fn assert_stopped_by(variable: &str, output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stdout), (Some(2), ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(variable), "{variable} in {stderr}");
    assert!(!stderr.contains("s3cret"), "{stderr}");
}

#[test]
fn a_variable_that_is_missing_or_malformed_stops_the_program_with_a_sentence_that_names_it() {
    assert_stopped_by("USERS_DATABASE_URL", &run(&[]));
    let good = ("USERS_DATABASE_URL", "postgres://users_svc:s3cret@127.0.0.1:1/shop");
    for (variable, value) in [
        ("USERS_DATABASE_URL", ""),
        ("USERS_DATABASE_URL", "mysql://users_svc:s3cret@localhost/shop"),
        ("USERS_DATABASE_URL", "postgres://users_svc:s3cret@localhost:port/shop"),
        ("USERS_DATABASE_URL", "s3cret"),
        ("USERS_DATABASE_URL", "postgres://users_svc@localhost/shop?sslmod=s3cret"),
        ("USERS_DATABASE_URL", "postgres://users_svc@localhost/shop?sslmode=disable&Password=s3cret"),
        ("USERS_DATABASE_NEXT_URL", ""),
        ("USERS_DATABASE_NEXT_URL", "postgres://users_svc:s3cret@localhost:port/users"),
        ("USERS_DATABASE_READ_URL", ""),
        ("USERS_DATABASE_READ_URL", "postgres://users_svc:s3cret@localhost,localhost:port/users"),
        ("READ_MAX_LAG", "soon"),
        ("USERS_ADDR", ""),
        ("USERS_ADDR", "localhost"),
        ("USERS_ADDR", "127.0.0.1:99999"),
        ("USERS_GRPC_ADDR", "50051"),
        ("DATABASE_MAX_CONNECTIONS", "0"),
        ("DATABASE_MAX_CONNECTIONS", "1001"),
        ("DATABASE_MAX_CONNECTIONS", "ten"),
        ("TOKIO_WORKER_THREADS", "0"),
        ("TOKIO_WORKER_THREADS", "all"),
        ("DATABASE_QUEUE_TIMEOUT", "200"),
        ("SHUTDOWN_DELAY", "soon"),
        ("STARTUP_TIMEOUT", "5"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "many"),
        ("KEEP_ALIVE", "75"),
        ("HEAD_TIMEOUT", "-1s"),
        ("BODY_TIMEOUT", "10"),
        ("WRITE_TIMEOUT", ""),
        ("OPEN_ORDERS_VIA", "pigeon"),
        ("OPEN_ORDERS_SHADOW", "pigeon"),
        ("EVENTS_VIA", "pigeon"),
        ("EVENTS_VIA", "kafka"),
        ("KAFKA_BROKERS", "kafka"),
        ("EVENTS_VIA", "rabbitmq"),
        ("RABBITMQ_URL", "http://user:secret@host"),
        ("RABBITMQ_URL", "amqp://user:secret@host"),
        ("RABBITMQ_MAX_AGE", "old"),
        ("ORDERS_URL", "ftp://orders"),
        ("ORDERS_URL", "https://orders/path"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "users=loudly"),
    ] {
        assert_stopped_by(variable, &run(&[good, (variable, value)]));
    }
}

/// A database without migrations, on a server where the role may log in.
fn empty_database() -> TestDatabase {
    drop(TestDatabase::create());
    TestDatabase::empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_before_the_migrations_waits_for_them() {
    let database = empty_database();
    let mut program =
        Program::start(&[("USERS_DATABASE_URL", &database.url_as(USERS_ROLE)), ("STARTUP_TIMEOUT", "10m")]).await;
    let client = Client::at(program.address);
    let problem = client.get("/health/ready").await.problem(503, "");
    assert!(problem["detail"].as_str().expect("text").contains("sqlx migrate run"), "{problem}");
    client.get("/health/live").await.expect(200);
    shared_db::MIGRATOR.run(&mut database.owner().await).await.expect("migrated");
    program.until_ready().await;
    program.signal("TERM");
    let (status, log) = program.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let waiting = format!("migration {} has not been applied", shared_db::newest_migration());
    assert!(log.contains(&waiting), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_the_migrations_no_longer_than_it_is_told() {
    let database = empty_database();
    let mut program =
        Program::start(&[("USERS_DATABASE_URL", &database.url_as(USERS_ROLE)), ("STARTUP_TIMEOUT", "2s")]).await;
    let (status, log) = program.end().await;
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().expect("a line");
    assert!(last.contains("STARTUP_TIMEOUT") && last.contains("sqlx migrate run"), "{log}");
}

#[test]
fn help_lists_every_variable_that_is_read() {
    let directory = TempDir::new().expect("a directory");
    let secret = ("USERS_DATABASE_URL", "postgres://users_svc:s3cret@127.0.0.1:1/shop");
    let next = ("USERS_DATABASE_NEXT_URL", secret.1);
    let output = command(directory.path(), &[secret, next]).arg("--help").output().expect("a program");
    let help = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    let variables = [
        "USERS_DATABASE_URL",
        "USERS_DATABASE_NEXT_URL",
        "USERS_DATABASE_READ_URL",
        "READ_MAX_LAG",
        "USERS_ADDR",
        "USERS_GRPC_ADDR",
        "OPEN_ORDERS_VIA",
        "OPEN_ORDERS_SHADOW",
        "EVENTS_VIA",
        "KAFKA_BROKERS",
        "RABBITMQ_URL",
        "RABBITMQ_URL_FILE",
        "RABBITMQ_CA_FILE",
        "RABBITMQ_MAX_AGE",
        "RABBITMQ_MAX_BYTES",
        "ORDERS_URL",
        "DATABASE_MAX_CONNECTIONS",
        "DATABASE_QUEUE_TIMEOUT",
        "SHUTDOWN_DELAY",
        "STARTUP_TIMEOUT",
        "TOKIO_WORKER_THREADS",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "KEEP_ALIVE",
        "HEAD_TIMEOUT",
        "BODY_TIMEOUT",
        "WRITE_TIMEOUT",
        "SERVICE_TOKEN_FILE",
        "SERVICE_TOKEN_CLIENT_ID",
        "SERVICE_TOKEN_CLIENT_SECRET_FILE",
        "SERVICE_TOKEN_URL",
        "SERVICE_TOKEN_SCOPE",
        "SERVICE_TOKEN_AUDIENCE",
        "LOG_FORMAT",
        "RUST_LOG",
    ];
    for variable in variables {
        assert!(help.contains(variable), "{variable} in {help}");
    }
    for default in ["127.0.0.1:8081", "127.0.0.1:50051", "local", "10", "info"] {
        assert!(help.contains(default), "{default} in {help}");
    }
    assert!(!help.contains("s3cret"), "{help}");
}

#[tokio::test]
async fn the_file_env_is_read_and_the_environment_comes_first() {
    let database = TestDatabase::create();
    let write = || {
        let directory = TempDir::new().expect("a directory");
        let variables = format!("USERS_DATABASE_URL='{}'\nDATABASE_MAX_CONNECTIONS=none\n", database.url_as(USERS_ROLE));
        std::fs::write(directory.path().join(".env"), variables).expect("a file");
        directory
    };
    let output = command(write().path(), &[]).output().expect("a program");
    assert_stopped_by("DATABASE_MAX_CONNECTIONS", &output);
    let mut program = Program::start_in(write(), &[("DATABASE_MAX_CONNECTIONS", "3")]).await;
    program.until_ready().await;
    program.signal("TERM");
    assert_eq!(program.end().await.0.code(), Some(0));
}

/// The entries of a log in JSON.
fn entries(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

/// The entries of the request with this id.
fn of_request<'a>(entries: &'a [Value], id: &str) -> Vec<&'a Value> {
    entries.iter().filter(|entry| entry["span"]["request.id"] == id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cause_of_a_failure_is_logged_once_with_the_request_and_without_secrets() {
    let url = closed_url();
    let variables = [("USERS_DATABASE_URL", url.as_str()), ("RUST_LOG", "info,chassis=debug")];
    let mut program = Program::start(&variables).await;
    let client = Client::at(program.address);
    client.get("/users/0198c0de-0000-7000-8000-000000000000").header("x-request-id", "failed").await.problem(503, "");
    client.get("/users/nobody").header("x-request-id", "refused").await.problem(404, "");
    program.signal("TERM");
    let (_, log) = program.end().await;
    assert!(!log.contains("s3cret"), "{log}");
    let entries = entries(&log);
    let failed = of_request(&entries, "failed");
    let warnings: Vec<_> = failed.iter().filter(|entry| entry["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{failed:?}");
    let (warning, span) = (warnings[0], &warnings[0]["span"]);
    assert_eq!((&span["method"], &span["route"]), (&json!("GET"), &json!("/users/{id}")));
    // Down to the last source, and not only what the client is told.
    assert!(warning["error"].as_str().is_some_and(|error| error.to_lowercase().contains("refused")), "{warning}");
    let refused = of_request(&entries, "refused");
    assert!(refused.iter().all(|entry| entry["level"] == "DEBUG"), "the caller's faults are no news: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_a_request_belongs_to_is_logged_with_it() {
    // None of this needs a database.
    let mut program = Program::start(&[("USERS_DATABASE_URL", &closed_url()), ("RUST_LOG", "info,chassis=debug")]).await;
    let client = Client::at(program.address);
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let sent = [
        ("good", format!("00-{TRACE}-00f067aa0ba902b7-01"), Some(TRACE)),
        // A later version of the standard may say more.
        ("later", format!("01-{TRACE}-00f067aa0ba902b7-01-more"), Some(TRACE)),
        ("upper", format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), None),
        ("zero", format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
        ("parentless", format!("00-{TRACE}-0000000000000000-01"), None),
        ("ff", format!("ff-{TRACE}-00f067aa0ba902b7-01"), None),
        ("short", "00-4bf92f-00f067aa0ba902b7-01".to_owned(), None),
        ("more", format!("00-{TRACE}-00f067aa0ba902b7-01-more"), None),
        ("nonsense", "trace".to_owned(), None),
    ];
    for (id, traceparent, _) in &sent {
        client.get("/users/nobody").header("x-request-id", id).header("traceparent", traceparent).await.problem(404, "");
    }
    program.signal("INT");
    let (_, log) = program.end().await;
    let entries = entries(&log);
    for (id, traceparent, trace) in sent {
        let logged = of_request(&entries, id);
        assert!(!logged.is_empty(), "{id}");
        for entry in logged {
            assert_eq!(entry["span"]["trace.id"].as_str(), trace, "{traceparent}: {entry}");
        }
    }
}

/// Shells give few, and each connection is one.
#[cfg(target_os = "linux")]
#[test]
fn the_program_takes_as_many_open_files_as_it_may() {
    let directory = TempDir::new().expect("a directory");
    let address = free_address();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64 && exec \"$0\"", env!("CARGO_BIN_EXE_users")]).current_dir(directory.path());
    command.env_clear().env("USERS_DATABASE_URL", closed_url()).env("USERS_ADDR", address.to_string());
    command.env("USERS_GRPC_ADDR", "127.0.0.1:0").stderr(Stdio::null());
    let mut child = command.spawn().expect("a program");
    dev::wait::until_blocking("it listens", || TcpStream::connect(address).is_ok());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
    child.kill().and_then(|()| child.wait()).expect("an end");
    let limits = limits.expect("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let [soft, hard, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!(soft, hard);
    assert_ne!(soft, "64");
}
