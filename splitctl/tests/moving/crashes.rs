//! `kill -9` at every point of every command: the same command does what is left, or `abort` takes it back.

use super::app::{App, MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, said, strings};

/// The state after a crash is one that `status` can tell.
fn has_status(fixture: &Fixture) -> String {
    fixture.done(&["status", OWNER])
}

/// Runs a command that dies at its first point, again until it dies at its second, and so on until it comes to its end. The
/// service writes in between. Returns how often it died.
fn die_everywhere(fixture: &Fixture, app: &mut App, arguments: &[&str]) -> usize {
    for point in 1.. {
        let mut command = fixture.command(arguments);
        let output = command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs");
        let (code, text) = said(&output);
        app.write();
        match code {
            Some(0) => return point - 1,
            None => assert!(text.contains("dying at point"), "{arguments:?}: {text}"),
            other => panic!("{arguments:?}, point {point}: {other:?} {text}"),
        }
        has_status(fixture);
        assert!(point < 100, "{arguments:?} never comes to its end");
    }
    unreachable!("it returns")
}

fn every_step_survives(fixture: &Fixture) {
    let mut app = App::new(fixture);
    let mut died = 0;
    for step in
        ["copy", "verify", "detach", "cutover", "verify", "rollback", "verify", "detach", "cutover", "verify", "complete"]
    {
        died += die_everywhere(fixture, &mut app, &[step, OWNER]);
        app.check();
    }
    assert!(died > 30, "only {died} points");
    fixture.assert_clean();
    assert_eq!(strings(&fixture.source, "select coalesce(to_regclass('notes')::text, 'gone')"), ["gone"]);
}

#[test]
fn a_command_that_was_killed_anywhere_is_done_by_running_it_again() {
    every_step_survives(&Fixture::two_clusters(SCHEMA, MANIFEST));
}

#[test]
fn a_command_that_was_killed_anywhere_is_done_by_running_it_again_within_a_cluster() {
    every_step_survives(&Fixture::one_cluster(SCHEMA, MANIFEST));
}

/// Dies at one point, and is taken back from there; then at the next.
fn is_taken_back(fixture: &Fixture, app: &mut App, before: &[&str], step: &str) {
    for point in 1.. {
        for step in before {
            fixture.done(&[step, OWNER]);
        }
        let mut command = fixture.command(&[step, OWNER]);
        let (code, text) = said(&command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs"));
        app.write();
        assert!(code == Some(0) || text.contains("dying at point"), "{step}: {code:?} {text}");
        let status = has_status(fixture);
        if status.contains("no move of shop is open") {
            // It died before there was anything to take back.
            continue;
        }
        if status.contains("live in the target") {
            die_everywhere(fixture, app, &["rollback", OWNER]);
        }
        die_everywhere(fixture, app, &["abort", OWNER]);
        fixture.assert_clean();
        app.check();
        let key = strings(
            &fixture.source,
            "select conname::text from pg_constraint where conrelid = 'notes'::regclass and contype = 'f' and convalidated",
        );
        assert_eq!(key, ["notes_tenant_id_fkey"]);
        assert_eq!(strings(&fixture.target, "select coalesce(to_regclass('notes')::text, 'gone')"), ["gone"]);
        if code == Some(0) {
            return;
        }
    }
}

#[test]
fn a_copy_that_was_killed_anywhere_can_be_taken_back() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    is_taken_back(&fixture, &mut App::new(&fixture), &[], "copy");
}

#[test]
fn a_cutover_that_was_killed_anywhere_can_be_taken_back() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    is_taken_back(&fixture, &mut App::new(&fixture), &["copy", "verify", "detach"], "cutover");
}
