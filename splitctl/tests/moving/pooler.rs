//! Clients behind a pooler that a switch turns: a real `PgBouncer`, and the console of one that is not there.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use dev::process::{Leashed, Signal, free_address};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row, ValueRef, query, raw_sql};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::app::{MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, StoppedStream, execute, said, signal, strings, until};
use super::pooler_fake::{Fake, Says, WORKS};

/// The program that `TEST_PGBOUNCER` names, or Debian's.
fn program() -> PathBuf {
    std::env::var_os("TEST_PGBOUNCER").map_or_else(|| PathBuf::from("/usr/sbin/pgbouncer"), PathBuf::from)
}

/// Whether this version keeps prepared statements; `None` if there is none.
fn keeps_statements() -> Option<bool> {
    let Ok(output) = Command::new(program()).arg("--version").output() else {
        println!("not tried: {} is not there; Debian has it in the package pgbouncer", program().display());
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    let version = said.lines().next()?.strip_prefix("PgBouncer ")?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().expect("a number"));
    Some((numbers.next(), numbers.next()) >= (Some(1), Some(21)))
}

/// A running `PgBouncer`, whose database `shop` leads to the source at first.
struct Pooler {
    /// For clients.
    url: String,
    /// For `--pooler`, without a file.
    console: String,
    file: PathBuf,
    keeps_statements: bool,
    _process: Leashed,
    _folder: TempDir,
}

impl Pooler {
    /// `None` on a machine without it.
    fn start(fixture: &Fixture, pool_mode: &str) -> Option<Self> {
        let keeps_statements = keeps_statements()?;
        for cluster in &fixture.clusters {
            execute(&cluster.url("postgres"), "alter role shop_svc password 'pooled'");
        }
        let address = free_address();
        let folder = TempDir::new().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its own user may read it");
        let (file, users) = (folder.path().join("pgbouncer.ini"), folder.path().join("users.txt"));
        std::fs::write(&users, "\"admin\" \"\"\n\"app\" \"\"\n").expect("a file");
        let statements = if keeps_statements { "max_prepared_statements = 100" } else { "" };
        let text = format!(
            "[databases]\nshop = {} user=shop_svc password=pooled\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\nadmin_users = admin\npool_mode = {pool_mode}\n\
             {statements}\n",
            entry(&fixture.source),
            address.ip(),
            address.port(),
            users.display(),
        );
        std::fs::write(&file, text).expect("a file");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("its own user may read it");
        let mut command = Command::new(program());
        // It does not run as root.
        if Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n") {
            command.args(["-u", "nobody"]);
        }
        command.arg("-q").arg(&file);
        let process = Leashed::start(&command, Signal::SIGTERM).expect("a process");
        until("the pooler listens", || std::net::TcpStream::connect(address).is_ok());
        let (url, console) = (format!("postgres://app@{address}/shop"), format!("pgbouncer://admin@{address}/shop"));
        Some(Self { url, console, file, keeps_statements, _process: process, _folder: folder })
    }

    /// For `--pooler`, with its file.
    fn url_with_file(&self) -> String {
        format!("{}?file={}", self.console, self.file.display())
    }

    fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// At the console.
    fn operator(&self) -> Client {
        Client::new(&self.console.replace("pgbouncer://", "postgres://").replace("/shop", "/pgbouncer"))
    }

    /// Writes a row over a new connection. The error says why not.
    fn try_to_write(&self, token: &str) -> Result<(), String> {
        self.client().run(&insert(token)).map(drop)
    }

    /// Waits until clients can write, and checks where the row is.
    fn assert_leads_to(&self, url: &str, token: &str) {
        assert_eq!(self.try_to_write(token), Ok(()), "{token}");
        let there = format!("select count(*)::text from notes where token = '{token}'");
        assert_eq!(strings(url, &there), ["1"], "{token}");
    }

    fn is_paused(&self) -> bool {
        let rows = self.operator().run("show databases").expect("it answers");
        let row = rows.iter().find(|row| text(row, "name") == "shop").expect("the database");
        text(row, "paused") == "1"
    }
}

fn text(row: &PgRow, column: &str) -> String {
    let value = row.try_get_raw(column).expect("a column");
    if value.is_null() { String::new() } else { value.as_str().expect("text").to_owned() }
}

/// What the pooler's file says of a database.
fn entry(url: &str) -> String {
    let (server, name) = url.rsplit_once('@').and_then(|(_, end)| end.split_once('/')).expect("a URL");
    let (host, port) = server.split_once(':').expect("an address");
    format!("host={host} port={port} dbname={name}")
}

fn insert(token: &str) -> String {
    format!("insert into notes (tenant_id, token) values (1, '{token}')")
}

/// A connection: of a client, or at the console.
struct Client {
    connection: PgConnection,
    runtime: Runtime,
}

impl Client {
    fn new(url: &str) -> Self {
        let options = PgConnectOptions::from_str(url).expect("a URL").extra_float_digits(None);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(options.connect()).expect("the pooler answers");
        Self { connection, runtime }
    }

    /// By a prepared statement.
    fn insert(&mut self, token: &str) -> Result<(), String> {
        let insert = query("insert into notes (tenant_id, token) values (1, $1)").bind(token);
        self.runtime.block_on(insert.execute(&mut self.connection)).map(drop).map_err(|error| error.to_string())
    }

    fn run(&mut self, statement: &str) -> Result<Vec<PgRow>, String> {
        let statement = raw_sql(AssertSqlSafe(statement.to_owned()));
        self.runtime.block_on(statement.fetch_all(&mut self.connection)).map_err(|error| error.to_string())
    }
}

/// Clients that write all the time, by prepared statements where the pooler keeps them.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(pooler: &Pooler) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |number: usize| {
            let (stop, mut client, prepares) = (stop.clone(), pooler.client(), pooler.keeps_statements);
            thread::spawn(move || {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    let token = format!("load {number} {written}");
                    let inserted = if prepares { client.insert(&token) } else { client.run(&insert(&token)).map(drop) };
                    inserted.expect("no client fails");
                    written += 1;
                }
                written
            })
        };
        Self { writers: (0..4).map(writer).collect(), stop }
    }

    /// How many rows they have written.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.into_iter().map(|writer| writer.join().expect("no client fails")).sum()
    }
}

/// A fixture that can be switched.
fn ready() -> Fixture {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture
}

#[test]
fn clients_of_a_pooler_follow_out_and_back_and_none_fails() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let before = std::fs::read_to_string(&pooler.file).expect("its file");
    let url = pooler.url_with_file();
    let load = Load::start(&pooler);
    let said = fixture.done(&["cutover", OWNER, "--max-pause", "10s", "--pooler", &url]);
    assert!(said.contains("ms: pooler ") && said.contains("turning the pooler "), "{said}");
    assert_eq!(said.contains("does not keep prepared statements"), !pooler.keeps_statements, "{said}");
    pooler.assert_leads_to(&fixture.target, "after the cutover");
    fixture.done(&["verify", OWNER]);
    let said = fixture.done(&["rollback", OWNER, "--max-pause", "10s", "--pooler", &url, "--format", "json"]);
    assert!(said.contains(r#""turning":"#), "{said}");
    pooler.assert_leads_to(&fixture.source, "after the rollback");
    let written = load.end();
    let rows = "select count(*)::text from notes where token like 'load %'";
    assert_eq!(strings(&fixture.source, rows), [written.to_string()]);
    assert_eq!(std::fs::read_to_string(&pooler.file).expect("its file"), before);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn an_idle_transaction_that_holds_a_pause_up_is_named_and_clients_go_on() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let mut idle = pooler.client();
    // It holds no lock that splitctl needs.
    idle.run("begin; select count(*) from notes").expect("begun");
    let cutover = ["cutover", OWNER, "--max-pause", "2s", "--pooler", &pooler.url_with_file()];
    let said = fixture.refused(&cutover, "did not end within 1s of --max-pause");
    assert!(said.contains("role shop_svc), idle in transaction for"), "{said}");
    assert!(!pooler.is_paused());
    pooler.assert_leads_to(&fixture.source, "meanwhile");
    idle.run(&format!("{}; commit", insert("idle"))).expect("committed");
    fixture.done(&cutover);
    pooler.assert_leads_to(&fixture.target, "afterwards");
    assert_eq!(strings(&fixture.target, "select count(*)::text from notes where token = 'idle'"), ["1"]);
}

/// A cutover that stands still while the pooler is paused.
fn begin_and_stand_still(fixture: &Fixture, pooler: &Pooler) -> (Child, StoppedStream) {
    let standing = fixture.stand_still(&["--max-pause", "8s", "--pooler", &pooler.url_with_file()]);
    assert!(pooler.is_paused());
    standing
}

/// The end of such a cutover, and another one.
fn end_and_repeat(fixture: &Fixture, pooler: &Pooler, cutover: Child) -> String {
    let (code, text) = said(&cutover.wait_with_output().expect("it ends"));
    assert!(matches!(code, Some(1 | 2)), "{code:?} {text}");
    pooler.assert_leads_to(&fixture.source, "given up");
    fixture.done(&["cutover", OWNER, "--max-pause", "10s", "--pooler", &pooler.url_with_file()]);
    pooler.assert_leads_to(&fixture.target, "at last");
    fixture.done(&["verify", OWNER]);
    text
}

#[test]
fn clients_of_a_pooler_go_on_when_splitctl_is_stopped() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let (cutover, stream) = begin_and_stand_still(&fixture, &pooler);
    signal(cutover.id(), "STOP");
    pooler.assert_leads_to(&fixture.source, "while splitctl is stopped");
    assert!(!pooler.is_paused());
    drop(stream);
    signal(cutover.id(), "CONT");
    let text = end_and_repeat(&fixture, &pooler, cutover);
    assert!(text.contains("its guard acts alone"), "{text}");
}

#[test]
fn clients_of_a_pooler_go_on_when_its_guard_is_killed() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let (cutover, stream) = begin_and_stand_still(&fixture, &pooler);
    let children = Command::new("ps").args(["-o", "pid=", "--ppid", &cutover.id().to_string()]).output().expect("ps");
    let guard = String::from_utf8_lossy(&children.stdout).trim().parse().expect("one child: the guard");
    signal(guard, "KILL");
    drop(stream);
    // The marker arrives, and splitctl turns the pooler itself.
    let (code, text) = said(&cutover.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(0), "{text}");
    pooler.assert_leads_to(&fixture.target, "without a guard");
}

#[test]
fn wherever_splitctl_is_killed_clients_of_a_pooler_are_at_the_side_that_has_the_rows() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let mut idle = pooler.client();
    let mut died = Vec::new();
    for step in ["cutover", "rollback"] {
        for point in 1.. {
            let url = pooler.url_with_file();
            let mut command = fixture.command(&[step, OWNER, "--max-pause", "10s", "--pooler", &url]);
            let output = command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs");
            let (code, text) = said(&output);
            // A client that was connected all the time, and a new one.
            assert_eq!(idle.run(&insert(&format!("{step} {point}"))).err(), None, "{text}");
            assert_eq!(pooler.try_to_write(&format!("{step} {point} again")), Ok(()), "{text}");
            if code == Some(0) {
                break;
            }
            assert!(code.is_none() && text.contains("dying at point"), "{step}, point {point}: {code:?} {text}");
            died.extend(text.lines().filter(|line| line.starts_with("dying")).map(str::to_owned));
            assert!(point < 100, "{step} never ends");
        }
    }
    let died = died.join("\n");
    for point in ["guard started", "poolers paused", "marker arrived", "other side open", "poolers are paused"] {
        assert!(died.contains(point), "{point}: {died}");
    }
    let rows = "select count(*)::text from notes where token like 'cutover %' or token like 'rollback %'";
    let written = died.lines().count() * 2 + 4;
    assert_eq!(strings(&fixture.source, rows), [written.to_string()]);
    fixture.done(&["verify", OWNER]);
    assert_eq!(strings(&fixture.target, rows), [written.to_string()]);
}

#[test]
fn a_hook_that_hangs_behind_a_pause_is_killed_and_its_repetition_leads_clients_on() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let url = pooler.console.as_str();
    fixture.refused(&["cutover", OWNER, "--pooler", url], "nothing says how its clients get to the other side");
    let arguments = ["cutover", OWNER, "--pooler", url, "--max-pause", "4s", "--after-switch"];
    let said = fixture.done(&[&arguments[..], &["sleep 1000"]].concat());
    assert!(said.starts_with("switched: ") && said.contains("was killed"), "{said}");
    assert!(!pooler.is_paused());
    let refused = pooler.try_to_write("too early").expect_err("the old side refuses");
    assert!(refused.contains("permission denied"), "{refused}");
    let hook = format!("sed -i 's/host=.* user/{} user/' {}", entry(&fixture.target), pooler.file.display());
    fixture.done(&[&arguments[..], &[&hook]].concat());
    pooler.assert_leads_to(&fixture.target, "at last");
}

#[test]
fn a_hook_that_fails_before_the_switch_leaves_nothing_paused() {
    let fixture = ready();
    let hooks = ["--before-switch", "echo paused >>hooks; exit 4", "--after-switch", "echo $SPLITCTL_SIDE >>hooks"];
    fixture.refused(&[&["cutover", OWNER][..], &hooks].concat(), "exit status: 4");
    let hooks = std::fs::read_to_string(fixture.folder.path().join("hooks")).expect("they ran");
    assert_eq!(hooks, "paused\nsource\n");
}

#[test]
fn a_pooler_that_could_not_be_turned_is_named_before_anybody_waits() {
    let fixture = ready();
    let Some(pooler) = Pooler::start(&fixture, "transaction") else { return };
    let refused = |url: &str, reason: &str| {
        let said = fixture.refused(&["cutover", OWNER, "--pooler", url], reason);
        assert!(!pooler.is_paused(), "{said}");
        pooler.assert_leads_to(&fixture.source, reason);
    };
    refused(&pooler.url_with_file().replace("/shop?", "/shops?"), "it has no such database");
    let other = pooler.file.with_file_name("other.ini");
    std::fs::write(&other, "shop = host=10.0.0.9 port=1\n").expect("written");
    let url = format!("{}?file={}", pooler.console, other.display());
    refused(&url, "leads to 10.0.0.9:1/shop, which is neither");
    std::fs::write(&other, format!("shop = {}\n", entry(&fixture.target))).expect("written");
    refused(&url, "name the file that the pooler reads");
    pooler.operator().run("pause shop").expect("paused");
    fixture.refused(&["cutover", OWNER, "--pooler", &pooler.url_with_file()], "it is paused, and not by this move");
    let sessions = Pooler::start(&fixture, "session").expect("as before");
    fixture.refused(&["cutover", OWNER, "--pooler", &sessions.url_with_file()], "pool_mode = session");
}

/// What a cutover said whose pooler is this fake, and the commands that the fake got.
fn with_fake(fixture: &Fixture, says: Says, scheme: &str, more: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let fake = Fake::start(says);
    let url = format!("{scheme}://admin@{}/shop", fake.address);
    let (code, said) = fixture.run(&[&["cutover", OWNER, "--pooler", &url, "--after-switch", "true"][..], more].concat());
    (code, said, fake.commands())
}

#[test]
fn versions_of_poolers_are_told_apart_and_failures_of_theirs_leave_no_client_waiting() {
    let fixture = ready();
    // The pause does not come about.
    let (code, said, commands) = with_fake(&fixture, Says { silent: "pause shop", ..WORKS }, "pgbouncer", &[]);
    assert_eq!((code, said.contains("did not end within 250ms")), (Some(1), true), "{said}");
    assert!(!said.contains("prepared statements"), "{said}");
    assert_eq!(commands[..2], ["pause shop", "resume shop"]);
    let (code, said, commands) = with_fake(&fixture, Says { failing: "pause shop", ..WORKS }, "pgbouncer", &[]);
    assert_eq!((code, said.contains("it does not work")), (Some(1), true), "{said}");
    assert_eq!(commands[..2], ["pause shop", "resume shop"]);
    // An old version, and a setting.
    for (says, warning) in [
        (Says { version: "PgBouncer 1.20.1", failing: "pause shop", ..WORKS }, "PgBouncer 1.20.1 does not keep prepared"),
        (Says { max_prepared_statements: "0", failing: "pause shop", ..WORKS }, "`max_prepared_statements` is 0"),
    ] {
        let (_, said, _) = with_fake(&fixture, says, "pgbouncer", &[]);
        assert!(said.contains(warning) && said.contains("warning: "), "{said}");
    }
    // Odyssey pauses everything. A reload that fails comes after the commit.
    let slow = ["--max-pause", "10s"];
    let (code, said, commands) = with_fake(&fixture, Says { failing: "reload", ..WORKS }, "odyssey", &slow);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("switched: ") && said.contains("it does not work"), "{said}");
    assert_eq!(commands, ["pause", "reload", "resume"]);
    let (code, said, commands) = with_fake(&fixture, WORKS, "pgbouncer", &slow);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(commands, ["reload", "resume shop"]);
}
