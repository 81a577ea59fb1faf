//! What is lost besides: a slot, a checkpoint, a target, an earlier move's last word.

use dev::postgres::connect;
use dev::wait::block_on;
use sqlx::{Connection, Executor};

use super::app::{App, MANIFEST, SCHEMA};
use super::place::{OWNER, Place, execute, said, strings, until};

/// Drops the slots of the source whose names match, whoever uses them.
fn lose_slots(url: &str) {
    until("no slot is left", || {
        execute(url, "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null");
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where active_pid is null";
        let _ = super::place::try_execute(url, drop);
        strings(url, "select slot_name::text from pg_replication_slots").is_empty()
    });
}

#[test]
fn a_lost_slot_is_told_and_no_new_one_passes_over_what_was_committed_since() {
    let place = Place::one_cluster(SCHEMA, MANIFEST);
    place.copied();
    place.done(&["detach", OWNER]);
    lose_slots(&place.source);
    let mut app = App::new(&place);
    app.write();
    place.refused(&["cutover", OWNER], "slot of the stream");
    place.refused(&["copy", OWNER], "is gone");
    let status = place.done(&["status", OWNER]);
    assert!(status.contains("its slot is gone"), "{status}");
    app.write();
    app.check();
    place.done(&["abort", OWNER]);
    place.assert_clean();
}

#[test]
fn a_crash_before_the_next_checkpoint_sends_nothing_back_twice() {
    let schema = format!("{SCHEMA} create table lines (said text); grant select, insert on lines to shop_svc;");
    let manifest = MANIFEST.replace(r#"tables = ["notes"]"#, r#"tables = ["notes", "lines"]"#);
    let mut place = Place::two_clusters(&schema, &manifest);
    place.copied();
    let mut expected = 2000;
    for (step, crashes) in [("cutover", 1), ("rollback", 0), ("cutover", 1)] {
        if step == "cutover" {
            place.done(&["verify", OWNER]);
            place.done(&["detach", OWNER]);
        }
        // After the slot of the way back is made, and before the fence.
        let url = if step == "cutover" { place.source.clone() } else { place.target.clone() };
        let hook = format!(
            "psql '{url}' -qc \"insert into notes (tenant_id, token) select 1, '{step} ' || i || random() from generate_series(1, 50) i; insert into lines select 'line' from generate_series(1, 50)\""
        );
        place.done(&[step, OWNER, "--before-switch", &hook]);
        expected += 50;
        place.clusters[crashes].stop(true).expect("crashed");
        place.clusters[crashes].start_again().expect("started");
        place.done(&["verify", OWNER]);
        for url in [&place.source, &place.target] {
            assert_eq!(strings(url, "select count(*)::text from notes"), [expected.to_string()], "{step}");
            assert_eq!(strings(url, "select count(*)::text from lines"), [(expected - 2000).to_string()], "{step}");
        }
    }
    place.done(&["complete", OWNER]);
    place.assert_clean();
}

#[test]
fn a_switch_that_was_told_survives_a_crash_whatever_the_database_has_for_defaults() {
    let mut place = Place::two_clusters(SCHEMA, MANIFEST);
    for (cluster, database) in [(0, "before"), (1, "after")] {
        let defaults = format!(
            "alter database {database} set synchronous_commit = off; alter database {database} set default_transaction_isolation = 'serializable'"
        );
        execute(&place.clusters[cluster].url("postgres"), &defaults);
    }
    place.copied();
    place.done(&["detach", OWNER]);
    for (step, lives, left) in [("cutover", "target", 0), ("rollback", "source", 1)] {
        place.done(&[step, OWNER]);
        place.clusters[left].stop(true).expect("crashed");
        place.clusters[left].start_again().expect("started");
        let status = place.done(&["status", OWNER]);
        assert!(status.contains(&format!("live in the {lives}")), "{status}");
        place.done(&["verify", OWNER]);
    }
}

#[test]
fn somebody_who_changes_rights_meanwhile_stops_the_switch_and_nobody_else() {
    let place = Place::one_cluster(SCHEMA, MANIFEST);
    place.copied();
    place.done(&["detach", OWNER]);
    let mut app = App::new(&place);
    block_on(async || {
        let mut other = connect(&place.source).await.expect("a connection");
        let mut open = other.begin().await.expect("begun");
        open.execute("grant select on notes to other_svc").await.expect("granted");
        let (code, text) = place.run(&["cutover", OWNER, "--max-pause", "300"]);
        assert!(matches!(code, Some(1 | 2)), "{text}");
        // At once: no session of the try holds the tables any more.
        app.write();
        open.rollback().await.expect("ended");
    });
    place.done(&["cutover", OWNER]);
    app.write();
    app.check();
}

#[test]
fn nothing_is_copied_over_rows_that_came_back() {
    let place = Place::one_cluster(SCHEMA, MANIFEST);
    place.copied();
    place.done(&["detach", OWNER]);
    place.done(&["cutover", OWNER]);
    // Killed between the commit of the rollback and the new stream.
    let killed = (1..50).any(|point| {
        let mut rollback = place.command(&["rollback", OWNER]);
        let (code, text) = said(&rollback.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs"));
        assert_eq!(code, None, "{text}");
        text.trim_end().ends_with(": switched")
    });
    assert!(killed);
    place.refused(&["copy", OWNER], "have been copied and switched");
    place.refused(&["abort", OWNER], "repeat `splitctl rollback shop`");
    place.done(&["rollback", OWNER]);
    place.done(&["verify", OWNER]);
    assert_eq!(strings(&place.target, "select count(*)::text from notes"), ["2000"]);
    place.done(&["abort", OWNER]);
    place.assert_clean();
}

#[test]
fn a_target_that_is_gone_for_good_leaves_nothing_behind_in_the_source() {
    let mut place = Place::two_clusters(SCHEMA, MANIFEST);
    place.copied();
    place.done(&["detach", OWNER]);
    place.clusters[1].stop(true).expect("gone");
    let (code, text) = place.run(&["abort", OWNER]);
    assert_eq!(code, Some(2), "{text}");
    place.done(&["abort", OWNER, "--without-target"]);
    let source = place.source.clone();
    place.target = source;
    place.assert_clean();
    let key =
        "select conname::text from pg_constraint where conrelid = 'notes'::regclass and contype = 'f' and convalidated";
    assert_eq!(strings(&place.source, key), ["notes_tenant_id_fkey"]);
    App::new(&place).write();
}

#[test]
fn a_way_back_that_is_lost_can_be_given_up() {
    let place = Place::two_clusters(SCHEMA, MANIFEST);
    place.copied();
    place.done(&["detach", OWNER]);
    place.done(&["cutover", OWNER]);
    let mut app = App::new(&place);
    app.write();
    lose_slots(&place.target);
    app.write();
    place.refused(&["complete", OWNER], "have not been compared");
    place.done(&["complete", OWNER, "--give-up-way-back"]);
    app.write();
    app.check();
    place.assert_clean();
}

#[test]
fn tables_that_have_moved_out_can_move_on_and_a_key_that_broke_before_does_not_keep_them() {
    let mut place = Place::two_clusters(
        &format!(
            "{SCHEMA} alter table notes drop constraint notes_tenant_id_fkey; insert into notes (tenant_id, token) values (7, 'nobody''s'); alter table notes add constraint notes_tenant_id_fkey foreign key (tenant_id) references tenants not valid; alter table notes drop constraint notes_pkey; alter table notes add constraint notes_pkey primary key (id) deferrable;"
        ),
        MANIFEST,
    );
    place.copied();
    execute(&place.source, "update notes set token = 'new' where token = 'old 1'");
    place.done(&["detach", OWNER]);
    let aborted = place.done(&["abort", OWNER]);
    assert!(aborted.contains("1 foreign keys are back"), "{aborted}");
    assert_eq!(strings(&place.source, "select relreplident::text from pg_class where relname = 'notes'"), ["d"]);
    place.copied();
    for step in ["detach", "cutover", "verify", "complete"] {
        place.done(&[step, OWNER]);
    }
    // And on, to where they came from.
    std::mem::swap(&mut place.source, &mut place.target);
    place.copied();
    for step in ["cutover", "verify", "rollback", "verify", "cutover", "verify", "complete"] {
        place.done(&[step, OWNER]);
    }
    assert_eq!(strings(&place.target, "select count(*)::text from notes"), ["2001"]);
    place.assert_clean();
    let (_, text) = said(&place.command(&["status", OWNER]).output().expect("it runs"));
    assert!(text.contains("no move of shop is open"), "{text}");
}
