//! Losses: of a slot, a checkpoint, a target, and the last switch of an earlier move.

use dev::postgres::connect;
use dev::wait::block_on;
use sqlx::{Connection, Executor};

use super::app::{App, MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, execute, said, strings, try_execute, until};

/// Drops all slots of a database, in use or not.
fn lose_slots(url: &str) {
    until("no slot is left", || {
        execute(url, "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null");
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where active_pid is null";
        let _ = super::fixture::try_execute(url, drop);
        strings(url, "select slot_name::text from pg_replication_slots").is_empty()
    });
}

#[test]
fn a_lost_slot_is_reported_and_no_new_one_skips_what_was_committed_since() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    lose_slots(&fixture.source);
    let mut app = App::new(&fixture);
    app.write();
    fixture.refused(&["cutover", OWNER], "slot of the stream");
    fixture.refused(&["copy", OWNER], "is gone");
    let status = fixture.done(&["status", OWNER]);
    assert!(status.contains("its slot is gone"), "{status}");
    app.write();
    app.check();
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

/// Runs a command until it dies at the point of this name, which is behind the first so many. `undo` takes back what it did.
fn die_at(fixture: &Fixture, step: &str, name: &str, first: usize, undo: impl Fn()) {
    for point in first..100 {
        let mut command = fixture.command(&[step, OWNER]);
        let (code, text) = said(&command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs"));
        assert_eq!(code, None, "{step} did not die at `{name}`: {text}");
        if text.contains(&format!("dying at point {point}: {name}")) {
            return;
        }
        undo();
    }
    panic!("{step} has no point `{name}`");
}

/// What `status` names as the next command, which must work.
fn do_next(fixture: &Fixture, expected: &str) {
    let status = fixture.done(&["status", OWNER]);
    let next = status.lines().find_map(|line| line.strip_prefix("next: splitctl ")).unwrap_or_else(|| panic!("{status}"));
    assert_eq!(next, expected, "{status}");
    fixture.done(&next.split(' ').collect::<Vec<_>>());
}

#[test]
fn status_names_a_command_that_works_when_a_step_was_killed_and_its_slot_is_lost() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    die_at(&fixture, "copy", "rows copied", 11, || drop(fixture.done(&["abort", OWNER])));
    lose_slots(&fixture.source);
    fixture.refused(&["copy", OWNER], "is gone");
    do_next(&fixture, "abort shop");
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["verify", OWNER]);
    // The source is open by then, and the tables still live in the target.
    die_at(&fixture, "rollback", "other side open", 5, || {});
    lose_slots(&fixture.target);
    do_next(&fixture, "complete shop --give-up-way-back");
    execute(&fixture.target, "set role shop_svc; insert into notes (tenant_id, token) values (1, 'new')");
    fixture.assert_clean();
}

#[test]
fn a_crash_before_the_next_checkpoint_sends_nothing_back_twice() {
    let schema = format!("{SCHEMA} create table lines (said text); grant select, insert on lines to shop_svc;");
    let manifest = MANIFEST.replace(r#"tables = ["notes"]"#, r#"tables = ["notes", "lines"]"#);
    let mut fixture = Fixture::two_clusters(&schema, &manifest);
    fixture.copied();
    let mut expected = 2000;
    for (step, crashes) in [("cutover", 1), ("rollback", 0), ("cutover", 1)] {
        if step == "cutover" {
            fixture.done(&["verify", OWNER]);
            fixture.done(&["detach", OWNER]);
        }
        // The hook runs after the slot of the way back is created, and before the fence.
        let url = if step == "cutover" { fixture.source.clone() } else { fixture.target.clone() };
        let hook = format!(
            "psql '{url}' -qc \"insert into notes (tenant_id, token)
                 select 1, '{step} ' || i || random() from generate_series(1, 50) i;
                 insert into lines select 'line' from generate_series(1, 50)\""
        );
        fixture.done(&[step, OWNER, "--before-switch", &hook]);
        expected += 50;
        fixture.clusters[crashes].stop(true).expect("crashed");
        fixture.clusters[crashes].start_again().expect("started");
        fixture.done(&["verify", OWNER]);
        for url in [&fixture.source, &fixture.target] {
            assert_eq!(strings(url, "select count(*)::text from notes"), [expected.to_string()], "{step}");
            assert_eq!(strings(url, "select count(*)::text from lines"), [(expected - 2000).to_string()], "{step}");
        }
    }
    fixture.done(&["complete", OWNER]);
    fixture.assert_clean();
}

#[test]
fn an_acknowledged_switch_survives_a_crash_whatever_the_database_has_for_defaults() {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    for (cluster, database) in [(0, "before"), (1, "after")] {
        let defaults = format!(
            "alter database {database} set synchronous_commit = off;
             alter database {database} set default_transaction_isolation = 'serializable'"
        );
        execute(&fixture.clusters[cluster].url("postgres"), &defaults);
    }
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    for (step, lives, left) in [("cutover", "target", 0), ("rollback", "source", 1)] {
        fixture.done(&[step, OWNER]);
        fixture.clusters[left].stop(true).expect("crashed");
        fixture.clusters[left].start_again().expect("started");
        let status = fixture.done(&["status", OWNER]);
        assert!(status.contains(&format!("live in the {lives}")), "{status}");
        fixture.done(&["verify", OWNER]);
    }
}

#[test]
fn an_open_change_of_rights_stops_the_switch_and_no_writer() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let mut app = App::new(&fixture);
    block_on(async || {
        let mut other = connect(&fixture.source).await.expect("a connection");
        let mut open = other.begin().await.expect("begun");
        open.execute("grant select on notes to other_svc").await.expect("granted");
        let (code, text) = fixture.run(&["cutover", OWNER, "--max-pause", "300ms"]);
        assert!(matches!(code, Some(1 | 2)), "{text}");
        let version = &strings(&fixture.source, "select current_setting('server_version_num')")[0];
        // From 16 on, the role that applies changes is given its rights before writers wait.
        assert!(version.as_str() < "160000" || text.contains("from pg_stat_activity"), "{text}");
        // At once, because no session of the attempt holds the tables any more.
        app.write();
        open.rollback().await.expect("ended");
    });
    fixture.done(&["cutover", OWNER]);
    app.write();
    app.check();
}

#[test]
fn copy_is_refused_after_a_rollback() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    // It is killed between the commit of the rollback and the new stream.
    let killed = (1..50).any(|point| {
        let mut rollback = fixture.command(&["rollback", OWNER]);
        let (code, text) = said(&rollback.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs"));
        assert_eq!(code, None, "{text}");
        text.trim_end().ends_with(": switched")
    });
    assert!(killed);
    fixture.refused(&["copy", OWNER], "have been copied and switched");
    fixture.refused(&["abort", OWNER], "repeat `splitctl rollback shop`");
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["verify", OWNER]);
    assert_eq!(strings(&fixture.target, "select count(*)::text from notes"), ["2000"]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn a_target_that_is_gone_for_good_leaves_nothing_behind_in_the_source() {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.clusters[1].stop(true).expect("gone");
    let (code, text) = fixture.run(&["abort", OWNER]);
    assert_eq!(code, Some(2), "{text}");
    fixture.done(&["abort", OWNER, "--without-target"]);
    let source = fixture.source.clone();
    fixture.target = source;
    fixture.assert_clean();
    let key =
        "select conname::text from pg_constraint where conrelid = 'notes'::regclass and contype = 'f' and convalidated";
    assert_eq!(strings(&fixture.source, key), ["notes_tenant_id_fkey"]);
    App::new(&fixture).write();
}

#[test]
fn a_way_back_that_is_lost_can_be_given_up() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    let mut app = App::new(&fixture);
    app.write();
    lose_slots(&fixture.target);
    app.write();
    fixture.refused(&["complete", OWNER], "have not been compared");
    fixture.done(&["complete", OWNER, "--give-up-way-back"]);
    app.write();
    app.check();
    fixture.assert_clean();
}

#[test]
fn moved_tables_can_move_again_and_a_key_that_rows_broke_before_does_not_stop_them() {
    let mut fixture = Fixture::two_clusters(
        &format!(
            "{SCHEMA}
             alter table notes drop constraint notes_tenant_id_fkey;
             insert into notes (tenant_id, token) values (7, 'nobody''s');
             alter table notes add constraint notes_tenant_id_fkey foreign key (tenant_id) references tenants not valid;
             alter table notes drop constraint notes_pkey;
             alter table notes add constraint notes_pkey primary key (id) deferrable;"
        ),
        MANIFEST,
    );
    fixture.copied();
    execute(&fixture.source, "update notes set token = 'new' where token = 'old 1'");
    fixture.done(&["detach", OWNER]);
    let aborted = fixture.done(&["abort", OWNER]);
    assert!(aborted.contains("1 foreign keys are there again"), "{aborted}");
    assert_eq!(strings(&fixture.source, "select relreplident::text from pg_class where relname = 'notes'"), ["d"]);
    fixture.copied();
    for step in ["detach", "cutover", "verify", "complete"] {
        fixture.done(&[step, OWNER]);
    }
    // The second move takes them back to the first database.
    std::mem::swap(&mut fixture.source, &mut fixture.target);
    fixture.copied();
    for step in ["cutover", "verify", "rollback", "verify", "cutover", "verify", "complete"] {
        fixture.done(&[step, OWNER]);
    }
    assert_eq!(strings(&fixture.target, "select count(*)::text from notes"), ["2001"]);
    fixture.assert_clean();
    let (_, text) = said(&fixture.command(&["status", OWNER]).output().expect("it runs"));
    assert!(text.contains("no move of shop is open"), "{text}");
}

#[test]
fn a_target_that_is_gone_for_good_after_the_switch_leaves_a_way_out() {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    let insert = "set role shop_svc; insert into notes (tenant_id, token) values (1, 'written ' || random())";
    execute(&fixture.target, insert);
    fixture.done(&["verify", OWNER]);
    fixture.clusters[1].stop(true).expect("gone");
    let (_, text) = fixture.run(&["status", OWNER]);
    assert!(text.contains("splitctl abort shop --without-target"), "{text}");
    fixture.refused(&["abort", OWNER, "--without-target"], "--give-up-rows");
    assert!(try_execute(&fixture.source, insert).is_err());
    fixture.done(&["abort", OWNER, "--without-target", "--give-up-rows"]);
    execute(&fixture.source, insert);
    assert_eq!(strings(&fixture.source, "select count(*)::text from notes where token like 'written%'"), ["2"]);
    let source = fixture.source.clone();
    fixture.target = source;
    fixture.assert_clean();
}
