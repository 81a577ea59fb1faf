//! However a rehearsal ends, nothing is left: by an error, by a signal, or by the next run.

use std::process::Stdio;

use dev::wait::until_blocking as until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fixture, OWNER, cluster, execute, said, signal, strings};
use super::shop::{assert_nothing_is_left, shop};

/// The number of throw-away databases on the target's server.
fn databases(fixture: &Fixture) -> usize {
    strings(&fixture.target, "select datname::text from pg_database where datname like 'splitctl%'").len()
}

#[test]
fn the_next_run_drops_what_a_killed_one_has_left() {
    let fixture = shop();
    let mut most = 0;
    // The first points are those of the throw-away databases, and the others those of the move between them.
    for point in [1, 2, 3, 4, 5, 6, 7, 14, 30] {
        let mut command = fixture.command(&["rehearse", OWNER, "--rows", "sample"]);
        let (code, text) = said(&command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs"));
        assert!(code.is_none() && text.contains("dying at point"), "{point}: {code:?} {text}");
        most = most.max(databases(&fixture));
    }
    assert_eq!(most, 2);
    // What has the name and not the mark is somebody else's.
    fixture.done(&["rehearse", OWNER, "--rows", "none"]);
    assert_nothing_is_left(&fixture.target);
    execute(&fixture.target, "create database splitctl_rehearsal_shop_source");
    let (code, text) = fixture.run(&["rehearse", OWNER]);
    assert!(code == Some(2) && text.contains("no rehearsal has created it"), "{text}");
    assert_eq!(databases(&fixture), 1);
}

#[test]
fn a_signal_ends_a_rehearsal_and_leaves_nothing() {
    let fixture = shop();
    let mut command = fixture.command(&["rehearse", OWNER]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    until("both databases are there", || databases(&fixture) == 2);
    kill(Pid::from_raw(running.id().cast_signed()), Signal::SIGINT).expect("a signal");
    let (code, text) = said(&running.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert_nothing_is_left(&fixture.target);
    assert!(!fixture.folder.path().join("rehearsals").exists());
}

#[test]
fn a_rehearsal_that_stops_reports_what_it_found_and_leaves_nothing() {
    let fixture = shop();
    // A default that uses a table that stays cannot be created on the target.
    execute(
        &fixture.source,
        "create function first_customer() returns text language sql
         begin atomic select min(name) from customers; end;
         alter table orders alter column note set default first_customer()",
    );
    let text = fixture.refused(&["rehearse", OWNER, "--rows", "none"], "the rehearsal of shop stopped");
    assert!(text.contains("first_customer"), "{text}");
    assert_nothing_is_left(&fixture.target);
    let said = fixture.run(&["plan", OWNER]).1;
    assert!(said.contains("warning: rehearsal: one was made on") && said.contains("stopped before its end"), "{said}");
}

#[test]
fn two_rehearsals_of_one_owner_do_not_meet() {
    let mut fixture = shop();
    let mut command = fixture.command(&["rehearse", OWNER]);
    let first = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    until("both databases are there", || databases(&fixture) == 2);
    // The other one waits for ten seconds, and this one may need less: it stands still meanwhile.
    signal(first.id(), "STOP");
    fixture.refused(&["rehearse", OWNER], "another rehearsal runs");
    signal(first.id(), "CONT");
    let (code, text) = said(&first.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(0), "{text}");
    // A move that is open is not rehearsed.
    fixture.clusters.push(cluster());
    fixture.done(&["copy", OWNER]);
    let scratch = fixture.clusters[2].url("postgres");
    fixture.refused(&["rehearse", OWNER, "--scratch", &scratch], "its move is open");
}
