//! A server fails, and its standby takes over: a real standby, and a URL that names both.

use dev::postgres::Cluster;

use super::app::{MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, execute, strings, until};

/// A fixture whose source has a standby. The manifest names both, the standby first.
fn with_standby() -> (Fixture, Cluster) {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    let standby = fixture.clusters[0].standby().expect("a standby");
    let (login, primary) = fixture.source.rsplit_once('@').expect("a login");
    let standby_url = standby.url("before");
    let (_, second) = standby_url.rsplit_once('@').expect("a login");
    let (second, _) = second.split_once('/').expect("a path");
    let both = format!("{login}@{second},{primary}?target_session_attrs=read-write");
    let manifest = MANIFEST.replace("$SOURCE_URL", &both);
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    (fixture, standby)
}

/// The standby has everything, the primary dies, and the standby takes over. Its URL is the source's from then on.
fn take_over(fixture: &mut Fixture, standby: &Cluster) {
    let behind = "select application_name
        from pg_stat_replication
        where application_name = 'walreceiver'
          and replay_lsn = pg_current_wal_lsn()";
    until("the standby has everything", || !strings(&fixture.source, behind).is_empty());
    fixture.clusters[0].stop(true).expect("crashed");
    fixture.source = standby.url("before");
    execute(&fixture.source, "select pg_promote()");
}

fn write(url: &str, token: &str) {
    execute(url, &format!("set role shop_svc; insert into notes (tenant_id, token) values (1, '{token}')"));
}

const TOKENS: &str = "select token from notes where token not like 'old %' order by 1";

#[test]
fn after_the_cutover_a_standby_of_the_source_takes_over_and_the_way_back_goes_on() {
    let (mut fixture, standby) = with_standby();
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("warning: failover: ") && said.contains("walreceiver follow this server"), "{said}");
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    write(&fixture.target, "before");
    until("the row has come back", || strings(&fixture.source, TOKENS) == ["before"]);
    take_over(&mut fixture, &standby);
    write(&fixture.target, "after");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    write(&fixture.source, "at last");
    assert_eq!(strings(&fixture.source, TOKENS), ["after", "at last", "before"]);
    fixture.done(&["verify", OWNER]);
    assert_eq!(strings(&fixture.target, TOKENS), ["after", "at last", "before"]);
}

#[test]
fn before_the_cutover_a_standby_of_the_source_takes_over_and_the_copy_begins_again() {
    let (mut fixture, standby) = with_standby();
    fixture.copied();
    take_over(&mut fixture, &standby);
    write(&fixture.source, "after");
    let said = fixture.done(&["status", OWNER]);
    assert!(said.contains("its slot is gone") && said.contains("next: splitctl abort"), "{said}");
    fixture.done(&["abort", OWNER]);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    assert_eq!(strings(&fixture.target, TOKENS), ["after"]);
}

#[test]
fn several_hosts_are_refused_without_a_word_on_which_to_use_and_named_if_none_takes_writes() {
    let (fixture, standby) = with_standby();
    let file = fixture.folder.path().join("split.toml");
    let manifest = std::fs::read_to_string(&file).expect("it is there");
    std::fs::write(&file, manifest.replace("?target_session_attrs=read-write", "")).expect("written");
    let (code, said) = fixture.run(&["plan", OWNER]);
    assert!(code == Some(2) && said.contains("target_session_attrs=read-write"), "{said}");
    let primary = fixture.source.rsplit_once(':').and_then(|(_, end)| end.split_once('/')).expect("a port").0;
    std::fs::write(&file, manifest.replace(&format!(":{primary}/"), ":9/")).expect("written");
    let (code, said) = fixture.run(&["plan", OWNER]);
    let port = standby.url("x").rsplit_once(':').and_then(|(_, end)| end.split_once('/')).expect("a port").0.to_owned();
    assert!(code == Some(2) && said.contains(&format!("127.0.0.1:{port}/before is read-only")), "{said}");
    assert!(said.contains("127.0.0.1:9/before does not answer"), "{said}");
}
