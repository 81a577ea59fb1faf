//! `kill -9` at every point of every command: the same command does the rest, or `abort` undoes the move.

use super::app::{App, MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, said, strings};

/// After a crash, `status` must work.
fn has_status(fixture: &Fixture) -> String {
    fixture.done(&["status", OWNER])
}

/// Runs a command that dies at its first point, then again until it dies at its second, and so on until it succeeds. The
/// service writes in between. Returns how often the command died.
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
        assert!(point < 100, "{arguments:?} never ends");
    }
    unreachable!("it returns")
}

fn every_step_survives_a_crash(fixture: &Fixture) {
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
fn a_command_that_was_killed_anywhere_succeeds_when_it_is_repeated() {
    every_step_survives_a_crash(&Fixture::two_clusters(SCHEMA, MANIFEST));
}

#[test]
fn a_command_that_was_killed_anywhere_succeeds_when_it_is_repeated_within_a_cluster() {
    every_step_survives_a_crash(&Fixture::one_cluster(SCHEMA, MANIFEST));
}

/// The step dies at one point and the move is aborted from there; then at the next point.
fn is_aborted(fixture: &Fixture, app: &mut App, before: &[&str], step: &str) {
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
            // It died before there was anything to abort.
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
fn a_copy_that_was_killed_anywhere_can_be_aborted() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    is_aborted(&fixture, &mut App::new(&fixture), &[], "copy");
}

#[test]
fn a_cutover_that_was_killed_anywhere_can_be_aborted() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    is_aborted(&fixture, &mut App::new(&fixture), &["copy", "verify", "detach"], "cutover");
}
