//! The real program behind a real `PgBouncer`.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use dev::http::Client;
use dev::postgres::{Cluster, TestDatabase, USERS_ROLE, allow_login};
use dev::process::{Leashed, Signal, free_address};
use dev::wait::until_blocking;
use tempfile::TempDir;

use crate::program::Program;
use crate::support::person;

/// Where Debian puts it.
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

/// A running `PgBouncer`, and the URL by which a service reaches its database through it.
struct Pooler {
    url: String,
    _process: Leashed,
    _folder: TempDir,
}

/// `None` on a machine without `PgBouncer`.
async fn start(cluster: &Cluster, database: &TestDatabase, settings: &str) -> Option<Pooler> {
    let version = Command::new(PGBOUNCER).arg("--version").output();
    let Ok(Output { stdout, .. }) = version else {
        println!("not tried: {PGBOUNCER} is not there; Debian has it in the package pgbouncer");
        return None;
    };
    println!("{}", String::from_utf8_lossy(&stdout));
    allow_login(&mut database.owner().await, USERS_ROLE, cluster.password()).await.expect("a login");
    let direct = database.url().replace("//postgres:", &format!("//{USERS_ROLE}:"));
    let (server, name) = direct.rsplit_once('@').and_then(|(_, end)| end.split_once('/')).expect("a URL");
    let (host, port) = server.split_once(':').expect("an address");
    let address = free_address();
    let folder = TempDir::new().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its own user may read it");
    let file = folder.path().join("pgbouncer.ini");
    let text = format!(
        "[databases]\n{name} = host={host} port={port} user={USERS_ROLE} password={}\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n{settings}\n",
        cluster.password(),
        address.ip(),
        address.port(),
    );
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(PGBOUNCER);
    // It does not run as root.
    if std::process::Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n") {
        command.args(["-u", "nobody"]);
    }
    command.arg("-q").arg(&file);
    let process = Leashed::start(&command, Signal::SIGTERM).expect("a process");
    until_blocking("the pooler listens", || std::net::TcpStream::connect(address).is_ok());
    Some(Pooler { url: direct.replace(server, &address.to_string()), _process: process, _folder: folder })
}

/// The exit code of the program, and what it says.
fn run(url: &str) -> (Option<i32>, String) {
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_users"));
    command.env_clear().env("USERS_DATABASE_URL", url).env("USERS_ADDR", "127.0.0.1:0");
    command.env("USERS_GRPC_ADDR", "127.0.0.1:0").current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().expect("a program");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_does_not_keep_statements_or_settings_is_named_at_the_start() {
    let cluster = Cluster::temporary().expect("a cluster");
    let database = TestDatabase::on(&cluster);
    // Versions before 1.21 do not keep prepared statements in this mode; newer ones can be told not to.
    let transactions = "pool_mode = transaction\nignore_startup_parameters = options,extra_float_digits";
    let Some(pooler) = start(&cluster, &database, transactions).await else { return };
    let (code, said) = run(&pooler.url);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("USERS_DATABASE_URL leads to a pooler in transaction mode"), "{said}");
    assert!(!said.contains(cluster.password()), "{said}");
    drop(pooler);
    let strict = start(&cluster, &database, "pool_mode = session").await.expect("as before");
    let (code, said) = run(&strict.url);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("USERS_DATABASE_URL leads to a pooler that does not accept"), "{said}");
}

/// It refuses this with the same code as a setting that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_has_too_many_clients_ends_no_service() {
    let cluster = Cluster::temporary().expect("a cluster");
    let database = TestDatabase::on(&cluster);
    let full = "pool_mode = session\nmax_client_conn = 1\nignore_startup_parameters = options,extra_float_digits";
    let Some(pooler) = start(&cluster, &database, full).await else { return };
    let program = Program::start(&[("USERS_DATABASE_URL", &pooler.url)]).await;
    Client::at(program.address).get("/health/live").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_works() {
    let cluster = Cluster::temporary().expect("a cluster");
    let database = TestDatabase::on(&cluster);
    let sessions = "pool_mode = session\nignore_startup_parameters = options,extra_float_digits";
    let Some(pooler) = start(&cluster, &database, sessions).await else { return };
    let program = Program::start(&[("USERS_DATABASE_URL", &pooler.url)]).await;
    program.until_ready().await;
    let client = Client::at(program.address);
    for number in 0..20 {
        client.post("/users").json(&person(&format!("ada{number}"))).await.expect(201);
    }
    client.get("/users").await.expect(200);
}
