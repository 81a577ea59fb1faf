//! A server fails, and a standby that has its slots takes over: the move goes on. From Postgres 17 on.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use dev::postgres::Cluster;

use super::app::{MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, cluster, cluster_with, execute, strings, try_execute, until};

/// A standby with these settings gets slots.
const READY: [&str; 2] = ["sync_replication_slots=on", "hot_standby_feedback=on"];

/// Says why a test is left out, past the harness, which keeps back what a test prints.
fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "failover: skipped: {reason}");
}

/// Whether standbys can have slots. If not, it says so.
fn slots_survive(url: &str) -> bool {
    let version = strings(url, "select current_setting('server_version')").concat();
    let major: i32 = version.split(|letter: char| !letter.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < 17 {
        skip(&format!("Postgres {version} has no slots on standbys: set POSTGRES_VERSION=18"));
    }
    major >= 17
}

/// A fixture with a standby that gets slots, of the source or of the target. Its URL names both. A commit waits for the
/// standby, and so does the stream.
struct Pair {
    fixture: Fixture,
    /// The number of the primary among the fixture's clusters.
    primary: usize,
    standby: Cluster,
}

impl Pair {
    fn of(primary: usize) -> Option<Self> {
        let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
        if !slots_survive(&fixture.source) {
            return None;
        }
        let standby = fixture.clusters[primary].standby_with(&READY).expect("a standby");
        let (database, variable) = [("before", "$SOURCE_URL"), ("after", "$TARGET_URL")][primary];
        let url = fixture.clusters[primary].url(database);
        execute(&url, "alter system set synchronous_standby_names = 'walreceiver'");
        execute(&url, "alter system set synchronized_standby_slots = 'standby'");
        execute(&url, "select pg_reload_conf()");
        let manifest = MANIFEST.replace(variable, &both(&url, &standby.url(database)));
        std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
        Some(Self { fixture, primary, standby })
    }

    fn primary(&self) -> String {
        self.fixture.clusters[self.primary].url("postgres")
    }

    /// The slots that the standby would have as a primary.
    fn slots(&self) -> Vec<String> {
        let whole = "select slot_name::text from pg_replication_slots where synced and not temporary";
        strings(&self.standby.url("postgres"), whole)
    }

    /// The primary dies at once, and the standby takes over.
    fn fail_over(&mut self) {
        self.fixture.clusters[self.primary].stop(true).expect("crashed");
        execute(&self.standby.url("postgres"), "select pg_promote()");
        match self.primary {
            0 => self.fixture.source = self.standby.url("before"),
            _ => self.fixture.target = self.standby.url("after"),
        }
    }
}

/// One URL of two servers.
fn both(primary: &str, standby: &str) -> String {
    let host = |url: &str| url.rsplit_once('@').and_then(|(_, end)| end.split_once('/')).expect("a host").0.to_owned();
    let primary_host = host(primary);
    let hosts = format!("{},{primary_host}", host(standby));
    primary.replace(&primary_host, &hosts) + "?target_session_attrs=read-write"
}

/// Writes rows to whichever database takes them until it is told to end. Returns the tokens that were acknowledged.
fn write_until(ended: &AtomicBool, urls: &[String]) -> Vec<String> {
    let (mut acknowledged, mut at) = (Vec::new(), 0);
    for number in 0.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let statement = format!(
            "set lock_timeout = '2s'; set role shop_svc; insert into notes (tenant_id, token) values (1, 'load {number}')"
        );
        // What is not acknowledged may be there or not, so each token is tried once on each server.
        match try_execute(&urls[at], &statement) {
            Ok(()) => acknowledged.push(format!("load {number}")),
            Err(_) => at = (at + 1) % urls.len(),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    acknowledged
}

/// Every acknowledged row is there once: a second one would break the key on the token.
fn assert_written(url: &str, acknowledged: &[String]) {
    let there = strings(url, "select token from notes where token like 'load %'");
    let lost: Vec<&String> = acknowledged.iter().filter(|token| !there.contains(token)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(acknowledged.len() > 50 && there.len() < acknowledged.len() + 50, "{} {}", acknowledged.len(), there.len());
}

#[test]
fn a_standby_of_the_source_takes_over_under_load_and_the_stream_goes_on_without_a_new_copy() {
    let Some(mut pair) = Pair::of(0) else { return };
    let said = pair.fixture.done(&["plan", OWNER]);
    assert!(said.contains("walreceiver follow this server and get its slots, so a move goes on"), "{said}");
    assert!(!said.contains("warning: failover: "), "{said}");
    pair.fixture.copied();
    pair.fixture.done(&["detach", OWNER]);
    let urls = [pair.fixture.source.clone(), pair.standby.url("before"), pair.fixture.target.clone()];
    let ended = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let load = scope.spawn(|| write_until(&ended, &urls));
        let stream = "select format('%s %s', s.oid, r.srsubstate) from pg_subscription s
            join pg_subscription_rel r on r.srsubid = s.oid
            order by 1";
        let (before, primary) = (strings(&pair.fixture.target, stream), pair.primary());
        until("the standby has the slot", || {
            let _ = try_execute(&primary, "select pg_log_standby_snapshot()");
            pair.slots().len() == 1
        });
        let status = pair.fixture.done(&["status", OWNER]);
        assert!(status.contains("has the slot of the stream") && status.contains("next: splitctl cutover"), "{status}");
        pair.fail_over();
        execute(&pair.fixture.source, "set role shop_svc; insert into notes (tenant_id, token) values (1, 'after')");
        let arrived = "select token from notes where token = 'after'";
        until("the stream goes on", || strings(&pair.fixture.target, arrived) == ["after"]);
        assert_eq!(strings(&pair.fixture.target, stream), before, "the same stream, and no new copy");
        pair.fixture.done(&["verify", OWNER]);
        let status = pair.fixture.done(&["status", OWNER]);
        assert!(status.contains("next: splitctl cutover"), "{status}");
        pair.fixture.done(&["cutover", OWNER]);
        let written = "select count(*)::text from notes where token like 'load %'";
        let now = strings(&pair.fixture.target, written);
        until("the load has followed", || strings(&pair.fixture.target, written) != now);
        ended.store(true, Ordering::Relaxed);
        load.join().expect("no panic")
    });
    assert_written(&pair.fixture.target, &acknowledged);
    pair.fixture.done(&["verify", OWNER]);
    pair.fixture.done(&["rollback", OWNER]);
    assert_written(&pair.fixture.source, &acknowledged);
    pair.fixture.done(&["abort", OWNER]);
    pair.fixture.assert_clean();
}

#[test]
fn the_cutover_waits_until_a_standby_of_the_target_has_the_slot_of_the_way_back() {
    let Some(mut pair) = Pair::of(1) else { return };
    pair.fixture.copied();
    pair.fixture.done(&["detach", OWNER]);
    pair.fixture.done(&["cutover", OWNER]);
    assert_eq!(pair.slots().len(), 1, "when the switch is made, the standby has the slot");
    execute(&pair.fixture.target, "set role shop_svc; insert into notes (tenant_id, token) values (1, 'before')");
    pair.fail_over();
    execute(&pair.fixture.target, "set role shop_svc; insert into notes (tenant_id, token) values (1, 'after')");
    let arrived = "select token from notes where token in ('before', 'after') order by 1";
    until("the way back goes on", || strings(&pair.fixture.source, arrived) == ["after", "before"]);
    pair.fixture.done(&["verify", OWNER]);
    assert!(pair.fixture.done(&["status", OWNER]).contains("next: splitctl complete shop"));
    pair.fixture.done(&["rollback", OWNER]);
    execute(&pair.fixture.source, "set role shop_svc; insert into notes (tenant_id, token) values (1, 'at last')");
    pair.fixture.done(&["verify", OWNER]);
    pair.fixture.done(&["abort", OWNER]);
    pair.fixture.assert_clean();
}

#[test]
fn the_plan_names_what_a_standby_lacks_and_the_cutover_goes_on_with_a_warning() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    if !slots_survive(&fixture.source) {
        return;
    }
    let standby = fixture.clusters[0].standby_with(&["wal_level=replica"]).expect("a standby");
    let write = |manifest: &str| std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("splitctl cannot ask walreceiver: name it in the URL or in `source_standbys`"), "{said}");
    // A name or an address that moves hides the standby; the manifest can name it.
    let named = MANIFEST.replace("[owners.shop]\n", "source_standbys = [\"$STANDBY_URL\"]\n    [owners.shop]\n");
    write(&named.replace("$STANDBY_URL", &standby.url("before")));
    let lacking = [
        "sync_replication_slots is off: `alter system set sync_replication_slots = on` there",
        "hot_standby_feedback is off: `alter system set hot_standby_feedback = on` there",
        "wal_level is not logical: `alter system set wal_level = logical` there, and restart",
        "synchronized_standby_slots does not name standby, ",
    ];
    let said = fixture.done(&["plan", OWNER]);
    for what in lacking {
        assert!(said.lines().any(|line| line.starts_with("warning: failover: ") && line.contains(what)), "{what}: {said}");
    }
    assert!(!said.contains("primary_slot_name is not set") && !said.contains("cannot ask"), "{said}");
    for statement in [
        "alter system set primary_slot_name = ''",
        "alter system set primary_conninfo = 'host=127.0.0.1 port=9'",
        "select pg_reload_conf()",
    ] {
        execute(&standby.url("postgres"), statement);
    }
    // It follows no more, so nothing is known of it.
    let follows = "select application_name from pg_stat_replication where application_name = 'walreceiver'";
    until("it follows no more", || strings(&fixture.source, follows).is_empty());
    assert!(!fixture.done(&["plan", OWNER]).contains("failover: "));
    let primary = strings(&fixture.source, "select current_setting('port')").concat();
    let connection = format!("host=127.0.0.1 port={primary} user=postgres password={}", fixture.clusters[0].password());
    execute(&standby.url("postgres"), &format!("alter system set primary_conninfo = '{connection}'"));
    execute(&standby.url("postgres"), "select pg_reload_conf()");
    until("it follows again", || !strings(&fixture.source, follows).is_empty());
    let said = fixture.done(&["plan", OWNER]);
    for what in ["primary_slot_name is not set: create a slot", "primary_conninfo names no database: add `dbname=postgres`"]
    {
        assert!(said.lines().any(|line| line.starts_with("warning: failover: ") && line.contains(what)), "{what}: {said}");
    }
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let status = fixture.done(&["status", OWNER]);
    assert!(status.contains("does not synchronise slots") && status.contains("next: splitctl cutover"), "{status}");
    let said = fixture.done(&["cutover", OWNER]);
    assert!(said.contains("warning: the standby ") && said.contains("a failover to it would lose the stream"), "{said}");
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
}

#[test]
fn a_stream_that_waits_for_a_standby_is_named_and_without_failover_it_does_not_wait() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    if !slots_survive(&fixture.source) {
        return;
    }
    let set = |value: &str| {
        execute(&fixture.source, &format!("alter system set synchronized_standby_slots = {value}"));
        execute(&fixture.source, "select pg_reload_conf()");
        let now = "select current_setting('synchronized_standby_slots')";
        until("it is set", || strings(&fixture.source, now).concat() == value.replace('\'', ""));
    };
    let names = "synchronized_standby_slots on the source names gone, which no standby uses";
    execute(&fixture.source, "select pg_create_physical_replication_slot('gone', true)");
    set("'gone'");
    let said = fixture.refused(&["plan", OWNER], names);
    assert!(said.contains("write `failover = false` for the owner in the manifest"), "{said}");
    set("''");
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    set("'gone'");
    let status = fixture.done(&["status", OWNER]);
    assert!(status.contains(names) && status.contains("next: by hand: "), "{status}");
    fixture.refused(&["cutover", OWNER], names);
    set("''");
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl cutover"));
    fixture.done(&["abort", OWNER]);
    // Such a stream would be lost in a failover, and waits for nobody.
    set("'gone'");
    let without = MANIFEST.replace("target = ", "failover = false\n    target = ");
    std::fs::write(fixture.folder.path().join("split.toml"), without).expect("written");
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    execute(&fixture.source, "select pg_drop_replication_slot('gone')");
    fixture.assert_clean();
}

#[test]
fn a_server_that_does_not_let_pgoutput_read_its_changes_is_named() {
    let known = "select name from pg_settings where name = 'output_plugin_libraries'";
    let first = cluster();
    if strings(&first.url("postgres"), known).is_empty() {
        let version = strings(&first.url("postgres"), "select current_setting('server_version')").concat();
        return skip(&format!("Postgres {version} has no output_plugin_libraries; 18.6, 17.11, 16.15 and 15.19 have it"));
    }
    let strict = || cluster_with(&["output_plugin_libraries=test_decoding"]).expect("a cluster");
    for (clusters, side) in [(vec![strict(), first], "source"), (vec![cluster(), strict()], "target")] {
        let fixture = Fixture::new(clusters, SCHEMA, MANIFEST);
        let (code, said) = fixture.run(&["plan", OWNER]);
        let found = said.lines().filter(|line| line.starts_with("error: output_plugin_libraries: "));
        let found: Vec<&str> = found.collect();
        assert!(code == Some(1) && found.len() == 1 && found[0].contains(side), "{said}");
        let told = found[0].split('`').nth(1).expect("a statement");
        assert_eq!(told, "alter system set output_plugin_libraries = test_decoding, pgoutput");
        // A server takes that statement.
        let other = if side == "source" { &fixture.target } else { &fixture.source };
        execute(other, told);
        execute(other, "select pg_reload_conf()");
        let set = "select current_setting('output_plugin_libraries')";
        until("it is set", || strings(other, set) == ["test_decoding, pgoutput"]);
        let (_, said) = fixture.run(&["plan", OWNER]);
        assert_eq!(said.matches("error: output_plugin_libraries: ").count(), 1, "{said}");
    }
}
