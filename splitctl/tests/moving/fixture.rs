//! Two databases, a manifest, and the program.
#![allow(clippy::disallowed_methods, reason = "tests ask what no service would, and may block")]

use std::process::{Child, Command, Output, Stdio};

use dev::postgres::{Cluster, connect};
use dev::wait::block_on;
pub use dev::wait::until_blocking as until;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The owner whose tables move.
pub const OWNER: &str = "shop";

/// A source and a target, with a manifest to run the program on them.
pub struct Fixture {
    pub folder: TempDir,
    pub source: String,
    pub target: String,
    pub clusters: Vec<Cluster>,
}

impl Fixture {
    /// Two databases in one cluster.
    pub fn one_cluster(schema: &str, manifest: &str) -> Self {
        Self::new(vec![cluster()], schema, manifest)
    }

    /// A database in each of two clusters.
    pub fn two_clusters(schema: &str, manifest: &str) -> Self {
        Self::new(vec![cluster(), cluster()], schema, manifest)
    }

    /// A source in the first of these clusters, and a target in the last.
    pub fn new(clusters: Vec<Cluster>, schema: &str, manifest: &str) -> Self {
        let last = clusters.last().expect("a cluster");
        execute(&clusters[0].url("postgres"), "create database before");
        execute(&last.url("postgres"), "create database after");
        for cluster in &clusters {
            execute(&cluster.url("postgres"), "create role shop_svc login; create role other_svc login");
        }
        let (source, target) = (clusters[0].url("before"), last.url("after"));
        // Not every package of Postgres has this extension.
        let citext = strings(&source, "select name::text from pg_available_extensions where name = 'citext'");
        let schema = if citext.is_empty() {
            schema.replace("create extension if not exists citext;", "").replace("citext", "text")
        } else {
            schema.to_owned()
        };
        execute(&source, &schema);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("split.toml"), manifest).expect("written");
        Self { folder, source, target, clusters }
    }

    /// The program with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_splitctl"));
        command.args(arguments).current_dir(self.folder.path());
        // Where a downloaded server has no pg_dump, the machine's own must do.
        let pg_dump = self.clusters[0].client("pg_dump").unwrap_or_else(|missing| panic!("{missing}"));
        command.env("POSTGRES_BIN_DIR", pg_dump.parent().expect("a folder"));
        command.env("SOURCE_URL", &self.source).env("TARGET_URL", &self.target).env_remove("SPLITCTL_DIE_AT");
        command
    }

    /// The exit code, and the text of both outputs.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        said(&self.command(arguments).output().expect("it runs"))
    }

    /// Runs a command that must succeed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    /// Runs a command that must be refused, with this in its message.
    pub fn refused(&self, arguments: &[&str], reason: &str) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
        said
    }

    /// Copies and compares.
    pub fn copied(&self) {
        self.done(&["copy", OWNER]);
        self.done(&["verify", OWNER]);
    }

    /// The lines of a dump without rows and without what is splitctl's, in order of the alphabet: an access list keeps no
    /// order.
    pub fn definitions(&self, url: &str) -> Vec<String> {
        let mut command = Command::new(self.clusters[0].client("pg_dump").expect("pg_dump"));
        command.args(["--schema-only", "--create", "--exclude-schema=splitctl", "--dbname"]).arg(url);
        let output = command.output().expect("pg_dump starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        // Each dump has another key in these lines.
        let is_kept = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
        let mut lines: Vec<String> = text.lines().filter(is_kept).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Begins a cutover that stands still while writers wait, because the stream does.
    pub fn stand_still(&self, options: &[&str]) -> (Child, StoppedStream) {
        // The stream is calm when the hook runs.
        let hook = ["--before-switch", "touch calm; until [ -e stopped ]; do sleep 0.02; done"];
        let mut cutover = self.command(&[&["cutover", OWNER], &hook[..], options].concat());
        let mut cutover = cutover.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let file = |name: &str| self.folder.path().join(name);
        until("the stream is calm", || file("calm").exists());
        let stream = StoppedStream::new(&self.target);
        std::fs::write(file("stopped"), "").expect("written");
        let locks = "select pid::text
            from pg_locks
            where relation = 'notes'::regclass
              and mode = 'ShareRowExclusiveLock'
              and granted";
        let mut has_ended = || cutover.try_wait().expect("a child").is_some();
        until("writers wait", || has_ended() || !strings(&self.source, locks).is_empty());
        if has_ended() {
            panic!("the cutover waits for nobody: {}", said(&cutover.wait_with_output().expect("it has ended")).1);
        }
        (cutover, stream)
    }

    /// Checks that both databases have the definitions and rights that they had.
    pub fn assert_as(&self, before: &[Vec<String>; 2], when: &str) {
        for ((side, url), before) in [("source", &self.source), ("target", &self.target)].into_iter().zip(before) {
            let now = self.definitions(url);
            let only = |these: &[String], others: &[String]| {
                these.iter().filter(|line| !others.contains(line)).cloned().collect::<Vec<_>>().join("\n")
            };
            let (lost, gained) = (only(before, &now), only(&now, before));
            assert!(*before == now, "{when}, the {side} has lost:\n{lost}\nand gained:\n{gained}");
        }
    }

    /// Checks that no slot, publication, subscription, trigger or session of a move is left on either side.
    pub fn assert_clean(&self) {
        let left = "select 'slot ' || slot_name from pg_replication_slots
             union all select 'publication ' || pubname from pg_publication
             union all select 'subscription ' || subname from pg_subscription
                 where subdbid = (select oid from pg_database where datname = current_database())
             union all select 'trigger ' || tgname from pg_trigger where tgname like 'splitctl%'
             union all select 'event trigger ' || evtname from pg_event_trigger where evtname like 'splitctl%'
             union all select 'session ' || pid from pg_stat_activity where application_name like 'splitctl%'
             union all select 'origin ' || roname from pg_replication_origin";
        for url in [&self.source, &self.target] {
            until("nothing is left", || strings(url, left).is_empty());
        }
    }
}

/// A stream that stands still until this is dropped: a transaction of the receiving side holds the marker's table.
pub struct StoppedStream {
    _holder: PgConnection,
    _runtime: Runtime,
}

impl StoppedStream {
    pub fn new(receiver: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let holder = runtime.block_on(async {
            let mut holder = connect(receiver).await?;
            holder.execute("begin; lock table splitctl.marker_shop in share mode").await?;
            Ok::<_, sqlx::Error>(holder)
        });
        Self { _holder: holder.expect("the marker is there"), _runtime: runtime }
    }
}

/// A cluster for one test.
pub fn cluster() -> Cluster {
    cluster_with(&[]).expect("a cluster")
}

/// A cluster with these settings besides.
pub fn cluster_with(settings: &[&str]) -> anyhow::Result<Cluster> {
    let common =
        ["max_replication_slots=20", "max_wal_senders=20", "wal_receiver_timeout=5s", "wal_retrieve_retry_interval=200ms"];
    Cluster::temporary_with(&[&common, settings].concat())
}

pub fn said(output: &Output) -> (Option<i32>, String) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

/// Sends a signal to a process.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(sent.expect("it runs").success());
}

/// Runs statements, which must succeed.
pub fn execute(url: &str, statements: &str) {
    let done = block_on(async || connect(url).await?.execute(AssertSqlSafe(statements.to_owned())).await);
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// Tries statements, and returns the SQLSTATE if they fail.
pub fn try_execute(url: &str, statements: &str) -> Result<(), String> {
    let done = block_on(async || connect(url).await?.execute(AssertSqlSafe(statements.to_owned())).await);
    done.map(drop).map_err(|error| {
        error.as_database_error().and_then(|error| error.code()).map_or_else(|| error.to_string(), Into::into)
    })
}

/// The rows of a query with one column of text.
pub fn strings(url: &str, query: &str) -> Vec<String> {
    let query = query.to_owned();
    block_on(async || {
        let mut connection: PgConnection = connect(url).await?;
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut connection).await
    })
    .unwrap_or_else(|error: sqlx::Error| panic!("{error}"))
}
