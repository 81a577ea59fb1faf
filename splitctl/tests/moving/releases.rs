//! A release continues a move that an older release began, and refuses one that a newer release began.

use super::app::{App, MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, execute, strings, until};

/// The tables of `splitctl` in each database, and the version that this release writes.
const VERSIONS: &str = "select format('%s %s', format, version) from splitctl.versions order by format";

/// Runs a part of the older release's work on a database.
fn replay(fixture: &Fixture, url: &str, statements: &str) {
    let one = |url: &str, query: &str| strings(url, query).concat();
    let database = "select oid::text from pg_database where datname = current_database()";
    let system = "select system_identifier::text from pg_control_system()";
    for part in statements.split("-- next\n") {
        let part = part
            .replace("{source_database}", &one(&fixture.source, database))
            .replace("{target_database}", &one(&fixture.target, database))
            .replace("{target_system}", &one(&fixture.target, system))
            .replace("{oids}", &one(url, "select coalesce(to_regclass('public.notes')::oid::text, '0')"))
            .replace("{source_url}", &fixture.source);
        execute(url, &part);
    }
}

/// A move as the release before versions left it, after `copy`, `verify` and `detach`.
fn begun_by_version_1() -> Fixture {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    replay(&fixture, &fixture.source, include_str!("version_1/source.sql"));
    replay(&fixture, &fixture.target, include_str!("version_1/target.sql"));
    let copied = "select bool_and(srsubstate = 'r')::text from pg_subscription_rel";
    until("the rows are copied", || strings(&fixture.target, copied) == ["true"]);
    fixture
}

#[test]
fn a_move_that_the_release_before_versions_began_ends_with_this_one() {
    let fixture = begun_by_version_1();
    let mut app = App::new(&fixture);
    app.write();
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl cutover shop"));
    for step in ["cutover", "verify", "rollback", "verify", "detach", "cutover", "verify"] {
        fixture.done(&[step, OWNER]);
        app.write();
    }
    assert_eq!(strings(&fixture.source, VERSIONS), ["journal 3", "switches 1"]);
    assert_eq!(strings(&fixture.target, VERSIONS), ["switches 1"]);
    fixture.done(&["complete", OWNER]);
    app.write();
    app.check();
    fixture.assert_clean();
}

#[test]
fn a_move_that_the_release_before_versions_began_can_be_aborted_by_this_one() {
    let fixture = begun_by_version_1();
    let aborted = fixture.done(&["abort", OWNER]);
    assert!(aborted.contains("1 foreign keys are there again"), "{aborted}");
    fixture.assert_clean();
    assert_eq!(strings(&fixture.target, "select coalesce(to_regclass('notes')::text, 'gone')"), ["gone"]);
}

#[test]
fn a_newer_version_is_refused_before_anything_is_touched_and_the_message_names_the_release() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    let rows = "select count(*)::text from splitctl.journal";
    let before = strings(&fixture.source, rows);
    for (url, format, version) in [(&fixture.source, "journal", 4), (&fixture.target, "switches", 3)] {
        let set = |version: i32, release: &str| {
            format!("update splitctl.versions set version = {version}, release = '{release}' where format = '{format}'")
        };
        execute(url, &set(version, "0.9.0"));
        for step in ["status", "plan", "copy", "verify", "detach", "cutover", "abort"] {
            let told = fixture.refused(&[step, OWNER], &format!("splitctl.{format} has version {version}"));
            assert!(told.contains("continue with splitctl 0.9.0 or newer"), "{told}");
        }
        execute(url, &set(if format == "journal" { 3 } else { 1 }, "0.1.0"));
    }
    assert_eq!(strings(&fixture.source, rows), before);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}
