//! Private clusters: made, crashed, started again, and stopped with the process that made them.

#![allow(clippy::disallowed_methods, reason = "tests run any SQL, and may block")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dev::postgres::{Cluster, TestDatabase, connect};
use dev::process::{Leashed, Signal};
use dev::wait::{block_on, until_blocking as until};
use sqlx::Executor;

fn runs(process_id: u32) -> bool {
    Path::new(&format!("/proc/{process_id}")).exists()
}

#[test]
fn a_cluster_comes_back_with_its_rows_after_a_crash_of_the_server() {
    let mut cluster = Cluster::temporary().expect("a cluster");
    let url = cluster.url("postgres");
    block_on(async || connect(&url).await?.execute("create table kept as select 1 as n").await).expect("a table");
    cluster.stop(true).expect("stopped");
    assert!(block_on(async || connect(&url).await).is_err(), "a stopped server answers");
    cluster.start_again().expect("started");
    let n: i32 = block_on(async || sqlx::query_scalar("select n from kept").fetch_one(&mut connect(&url).await?).await)
        .expect("a row");
    assert_eq!(n, 1);
}

#[test]
fn a_persistent_cluster_keeps_rows_port_and_password_and_stops_when_dropped() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let path = folder.path().join("cluster");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("open to the server");
    let cluster = Cluster::persistent(&path).expect("a cluster");
    let (url, process_id) = (cluster.url("postgres"), cluster.process_id().expect("it runs"));
    block_on(async || connect(&url).await?.execute("create table kept as select 1 as n").await).expect("a table");
    drop(cluster);
    assert!(!runs(process_id), "the server is still there");
    let _cluster = Cluster::persistent(&path).expect("the same cluster");
    let n: i32 = block_on(async || sqlx::query_scalar("select n from kept").fetch_one(&mut connect(&url).await?).await)
        .expect("a row");
    assert_eq!(n, 1);
}

#[test]
fn several_clusters_run_at_once() {
    let (one, two) = (Cluster::temporary().expect("a cluster"), Cluster::temporary().expect("another"));
    let (first, second) = (TestDatabase::on(&one), TestDatabase::on(&two));
    for database in [&first, &second] {
        let users: i64 =
            block_on(async || sqlx::query_scalar("select count(*) from users").fetch_one(&mut database.owner().await).await)
                .expect("a table");
        assert_eq!(users, 0);
    }
}

#[test]
fn a_process_on_a_leash_ends_when_its_holder_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("id");
    // `kill -9` gives the holder no chance to stop the process itself.
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let mut holder = Command::new(std::env::current_exe().expect("this program"));
    holder.args(["--exact", "holds_a_process", "--ignored"]).env("HELD_SCRIPT", script);
    let mut holder = holder.spawn().expect("the holder");
    until("the held process runs", || file.exists());
    let held: u32 = std::fs::read_to_string(&file).expect("an id").trim().parse().expect("a number");
    assert!(runs(held));
    holder.kill().expect("killed");
    holder.wait().expect("ended");
    until("the held process ends", || !runs(held));
}

/// The test above runs this in a process of its own.
#[test]
#[ignore = "a part of another test"]
fn holds_a_process() {
    let script = std::env::var("HELD_SCRIPT").expect("run by the other test");
    let _held = Leashed::start(Command::new("/bin/sh").args(["-c", &script]), Signal::SIGTERM).expect("started");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_leash_passes_on_how_its_process_ended() {
    let run = |script: &str| Leashed::start(Command::new("/bin/sh").args(["-c", script]), Signal::SIGTERM).expect("started");
    assert_eq!(run("exit 3").wait().expect("ended").code(), 3);
    let folder = tempfile::tempdir().expect("a folder");
    let trapped = |trap: &str| {
        let ready = folder.path().join("ready");
        let held = run(&format!("trap '{trap}' TERM; touch {}; while :; do sleep 0.01; done", ready.display()));
        until("the process has set its trap", || ready.exists());
        std::fs::remove_file(&ready).expect("removed");
        held
    };
    assert_eq!(trapped("exit 4").stop().expect("ended").code(), 4);
    assert_eq!(trapped("").stop_within(Duration::from_millis(300)).expect("ended").code(), 137);
}
