//! What a move must survive besides its own crashes. Each case ends in a clear message, and the move can go on.

use std::process::Stdio;
use std::time::Duration;

use dev::postgres::connect;
use dev::wait::block_on;
use sqlx::{Connection, Executor};

use super::app::{App, MANIFEST, SCHEMA};
use super::fixture::{
    Fixture, OWNER, StoppedStream, cluster, cluster_with, execute, said, signal, strings, try_execute, until,
};

fn slots(fixture: &Fixture) -> Vec<String> {
    strings(&fixture.source, "select database::text from pg_replication_slots order by 1")
}

#[test]
fn a_transaction_that_holds_the_tables_is_named_and_blocks_nobody_for_long() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let mut app = App::new(&fixture);
    block_on(async || {
        let mut holder = connect(&fixture.source).await.expect("a connection");
        holder.execute("set application_name = 'nightly report'").await.expect("named");
        let mut open = holder.begin().await.expect("begun");
        // A writer that has not written yet holds this lock. No slot waits for it, only locks do.
        open.execute("lock table notes in row exclusive mode").await.expect("locked");
        let said =
            fixture.refused(&["cutover", OWNER, "--lock-timeout", "100ms", "--lock-attempts", "3"], "could not be locked");
        assert!(said.contains("nightly report"), "{said}");
        app.write();
        open.rollback().await.expect("ended");
    });
    // Only the stream's slot is left.
    assert_eq!(slots(&fixture), ["before"]);
    app.write();
    fixture.done(&["cutover", OWNER]);
    app.write();
    app.check();
}

#[test]
fn a_transaction_that_a_new_slot_would_wait_for_is_named() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    block_on(async || {
        let mut holder = connect(&fixture.source).await.expect("a connection");
        holder.execute("set application_name = 'nightly report'").await.expect("named");
        let mut open = holder.begin().await.expect("begun");
        open.execute("insert into tenants values (2)").await.expect("written");
        fixture.refused(&["copy", OWNER], "nightly report");
        open.rollback().await.expect("ended");
    });
    assert_eq!(slots(&fixture), Vec::<String>::new());
    fixture.done(&["copy", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn the_definitions_cannot_change_during_a_move_and_a_change_without_the_guard_is_found() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    execute(&fixture.source, "create table parents ()");
    for change in [
        "alter table notes add column more text default 'x'",
        "create unique index on notes (tenant_id, token)",
        "alter table notes rename column token to name",
        "create table heirs () inherits (notes)",
        "alter table notes inherit parents",
    ] {
        assert_eq!(try_execute(&fixture.source, change), Err("55000".to_owned()), "{change}");
    }
    execute(&fixture.source, "alter table tenants add column name text");
    execute(&fixture.source, "create table others (id integer primary key)");
    // Without a superuser there is no event trigger, and this change passes.
    execute(&fixture.source, "set splitctl.at_work = 'yes'; alter table notes add column more text default 'x'");
    fixture.refused(&["cutover", OWNER], "column public.notes of more");
    fixture.refused(&["verify", OWNER], "column public.notes of more");
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
    execute(&fixture.source, "alter table notes drop column more");
}

#[test]
fn every_row_that_differs_is_found_and_no_other_while_writes_go_on() {
    let fixture = Fixture::one_cluster(super::not_ours::SCHEMA, super::not_ours::MANIFEST);
    fixture.copied();
    let planted = r#"
        update parents set price = price + 1 where id = 77;
        delete from "Odd schema"."Order Items" where parent_id = 500 and "Line No" = 1;
        insert into "Odd schema"."Order Items" values (2999, 99, 'extra');
        delete from log_lines where ctid = (select max(ctid) from log_lines);
        update events set note = 'other' where id = 3000"#;
    let mut load = std::process::Command::new("psql");
    load.arg(&fixture.source).args(["-q", "-c"]).arg(
        "do $$ begin for i in 1..4000 loop
             update parents set amount = 1 + (amount + 1) % 1000 where id between 2900 and 2950;
             insert into log_lines values ('load');
             commit; perform pg_sleep(0.001);
         end loop; end $$",
    );
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql runs");
    until("the load runs", || strings(&fixture.source, "select count(*)::text from log_lines where said = 'load'") != ["0"]);
    fixture.done(&["verify", OWNER, "--chunk", "100"]);
    execute(&fixture.target, planted);
    let said = fixture.refused(&["verify", OWNER, "--chunk", "100"], "5 differ");
    for line in [
        "'77'::integer of parents is different",
        "('500'::integer, '1'::smallint) of \"Odd schema\".\"Order Items\" is missing",
        "'99'::smallint) of \"Odd schema\".\"Order Items\" is extra",
        "of log_lines is",
        "'3000'::bigint) of events is different",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    fixture.refused(&["cutover", OWNER], "parents_tenant_id_fkey");
    load.kill().expect("killed");
    load.wait().expect("ended");
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn one_move_at_a_time_and_one_operator_at_a_time() {
    let other = MANIFEST.replace("[owners.other]\n", "[owners.other]\n    target = \"$TARGET_URL\"\n");
    let fixture = Fixture::one_cluster(SCHEMA, &other);
    fixture.done(&["copy", OWNER]);
    fixture.refused(&["copy", "other"], "a move of shop is open");
    block_on(async || {
        let mut operator = connect(&fixture.source).await.expect("a connection");
        operator.execute("select pg_advisory_lock(hashtextextended('splitctl', 0))").await.expect("locked");
        fixture.refused(&["verify", OWNER], "another splitctl is running");
        // `status` needs no lock.
        fixture.done(&["status", OWNER]);
        operator.close().await.expect("closed");
    });
    fixture.done(&["verify", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn a_missing_right_is_reported_before_anything_is_done() {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    execute(&fixture.target, "create role plain login; create table taken (id integer)");
    execute(&fixture.source, "insert into notes (tenant_id, token) values (1, 'x')");
    fixture.target =
        fixture.clusters[1].url_as("postgres", "after").replace("postgres:", "plain:").replace("plain://", "postgres://");
    execute(
        &fixture.clusters[1].url("postgres"),
        &format!("alter role plain password '{}'", fixture.clusters[1].password()),
    );
    let (code, said) = fixture.run(&["plan", OWNER]);
    assert_eq!(code, Some(1), "{said}");
    for told in ["plain has no REPLICATION", "plain may not create publications"] {
        let on_target = said.lines().any(|line| line.contains("target (") && line.contains(told));
        assert!(on_target, "{told}: {said}");
    }
    fixture.refused(&["copy", OWNER], "the plan has errors");
    assert_eq!(strings(&fixture.source, "select coalesce(to_regnamespace('splitctl')::text, 'none')"), ["none"]);
}

#[test]
fn a_target_that_cannot_write_is_reported_and_the_copy_continues_when_it_can() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    // As on a full disk, every attempt of the copy fails, and the server retries.
    let full = "create function log_epoch() returns bigint language sql stable parallel safe as 'select 1::bigint';
        create table notes (
            id bigint generated always as identity primary key, tenant_id integer not null, token text not null unique,
            epoch bigint not null default log_epoch()
        );
        create function fail() returns trigger language plpgsql as $$ begin raise 'no room'; end $$;
        create trigger fail before insert on notes for each row execute function fail();
        alter table notes enable always trigger fail";
    execute(&fixture.target, full);
    fixture.refused(&["copy", OWNER], "trigger fail on public.notes is on the target, and not in the source");
    let accepting =
        MANIFEST.replace("[owners.shop.rights]", "accept = [\"there: trigger fail on public.notes\"]\n[owners.shop.rights]");
    std::fs::write(fixture.folder.path().join("split.toml"), accepting).expect("written");
    fixture.refused(&["copy", OWNER], "its rows cannot be copied: no room");
    App::new(&fixture).write();
    fixture.refused(&["copy", OWNER], "its rows cannot be copied: no room");
    execute(&fixture.target, "drop trigger fail on notes");
    fixture.done(&["copy", OWNER]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
    // The table was there before the move, so it stays.
    assert_eq!(strings(&fixture.target, "select count(*)::text from notes"), ["0"]);
}

/// The worker that applies the stream locks tables in the order of the changes, as this session does.
#[test]
fn a_deadlock_with_the_stream_does_not_end_the_copy() {
    const PARENTS: &str = "
        create table parents (id integer primary key);
        create table children (id integer primary key, parent_id integer not null references parents);
        insert into parents values (1);
        insert into children values (1, 1);
    ";
    // Holds the first definition up that comes after the rows.
    const HELD: &str = "
        create function hold() returns event_trigger language plpgsql as $$
        begin
            if (select bool_and(srsubstate = 'r') from pg_subscription_rel) then
                perform pg_advisory_xact_lock_shared(7);
            end if;
        end $$;
        create event trigger hold on ddl_command_start when tag in ('ALTER TABLE') execute function hold();
        alter event trigger hold enable always;
    ";
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["parents", "children"]
        target = "$TARGET_URL"
        accept = ["event triggers: hold"]
    "#;
    let patient = cluster_with(&["deadlock_timeout=3s"]).expect("a cluster");
    let fixture = Fixture::new(vec![cluster(), patient], PARENTS, manifest);
    block_on(async || {
        let mut applier = connect(&fixture.target).await.expect("a connection");
        // The copy is the one that the server ends.
        applier.execute("set deadlock_timeout = '1min'; select pg_advisory_lock(7)").await.expect("set");
        execute(&fixture.target, HELD);
        let copy =
            fixture.command(&["copy", OWNER]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let held = "select pid::text from pg_locks where locktype = 'advisory' and not granted";
        until("the rows are copied, and the key comes next", || !strings(&fixture.target, held).is_empty());
        let mut open = applier.begin().await.expect("begun");
        open.execute("lock table parents in row exclusive mode; select pg_advisory_unlock(7)").await.expect("locked");
        let waits = "select pid::text from pg_locks where relation = 'parents'::regclass and not granted";
        until("the copy has the one table and waits for the other", || !strings(&fixture.target, waits).is_empty());
        open.execute("lock table children in row exclusive mode").await.expect("locked, since the copy was ended");
        open.commit().await.expect("committed");
        let (code, text) = said(&copy.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(0), "{text}");
    });
    let ended = "select deadlocks::text from pg_stat_database where datname = current_database()";
    until("the deadlock is counted", || strings(&fixture.target, ended) == ["1"]);
    let keys = "select conname::text from pg_constraint where conrelid = 'children'::regclass and contype = 'f'";
    assert_eq!(strings(&fixture.target, keys), ["children_parent_id_fkey"]);
}

#[test]
fn odd_passwords_and_role_names_work_and_are_never_shown() {
    const PASSWORD: &str = r#"p@ss/w:rd'?#%"\ &="#;
    const ENCODED: &str = "p%40ss%2Fw%3Ard%27%3F%23%25%22%5C%20%26%3D";
    let mut fixture = Fixture::two_clusters(
        &SCHEMA
            .replace("shop_svc", "\"Shop's svc\"")
            .replace("create table tenants", "create role \"Shop's svc\"; create table tenants"),
        &MANIFEST.replace("\"shop_svc\"", "\"Shop's svc\""),
    );
    for cluster in &fixture.clusters {
        execute(
            &cluster.url("postgres"),
            &format!(
                "create role \"odd operator\" superuser login password E'{}'",
                PASSWORD.replace('\'', "''").replace('\\', "\\\\")
            ),
        );
    }
    execute(&fixture.target, "create role \"Shop's svc\"");
    let odd = |url: &str| {
        let at = url.find('@').expect("a login");
        format!("postgres://odd%20operator:{ENCODED}{}", &url[at..])
    };
    (fixture.source, fixture.target) = (odd(&fixture.source), odd(&fixture.target));
    let mut all = String::new();
    for step in ["plan", "copy", "verify", "detach", "cutover", "verify", "rollback", "status", "abort"] {
        all += &fixture.done(&[step, OWNER]);
    }
    assert!(!all.contains("p@ss") && !all.contains("p%40"), "{all}");
    let kept = strings(&fixture.source, "select string_agg(detail::text, '') from splitctl.journal");
    assert!(!kept[0].contains("p@ss") && !kept[0].contains("p%40"), "{kept:?}");
    fixture.assert_clean();
}

#[test]
fn hooks_run_before_and_after_the_switch_and_one_that_fails_before_stops_it() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.refused(&["cutover", OWNER, "--before-switch", "exit 3"], "exit 3");
    App::new(&fixture).write();
    assert_eq!(slots(&fixture), ["before"]);
    fixture.done(&[
        "cutover",
        OWNER,
        "--before-switch",
        "echo before-$SPLITCTL_SIDE >>hooks",
        "--after-switch",
        "echo after-$SPLITCTL_SIDE >>hooks",
    ]);
    fixture.done(&["rollback", OWNER, "--after-switch", "echo after-$SPLITCTL_SIDE >>hooks"]);
    // When the switch is given up, the second hook runs with the old side.
    fixture.done(&["verify", OWNER]);
    fixture.done(&["detach", OWNER]);
    block_on(async || {
        let mut holder = connect(&fixture.source).await.expect("a connection");
        let mut open = holder.begin().await.expect("begun");
        open.execute("lock table notes in row exclusive mode").await.expect("locked");
        let hooks = ["--before-switch", "true", "--after-switch", "echo still-$SPLITCTL_SIDE >>hooks"];
        let given_up = ["cutover", OWNER, "--lock-attempts", "1"].into_iter().chain(hooks).collect::<Vec<_>>();
        fixture.refused(&given_up, "could not be locked");
        open.rollback().await.expect("ended");
    });
    let hooks = std::fs::read_to_string(fixture.folder.path().join("hooks")).expect("they ran");
    assert_eq!(hooks, "before-target\nafter-target\nafter-source\nstill-source\n");
}

/// The stream stands still, so the switch cannot be made, and then splitctl does, so it cannot give up.
#[test]
fn writers_go_on_when_splitctl_stands_still() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let (cutover, stream) = fixture.stand_still(&["--max-pause", "6s"]);
    signal(cutover.id(), "STOP");
    let write = "set lock_timeout = '60s'; set role shop_svc; insert into notes (tenant_id, token) values (1, 'late')";
    assert_eq!(try_execute(&fixture.source, write), Ok(()));
    drop(stream);
    signal(cutover.id(), "CONT");
    let (code, text) = said(&cutover.wait_with_output().expect("it ends"));
    assert!(matches!(code, Some(1 | 2)), "{text}");
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["verify", OWNER]);
    assert_eq!(strings(&fixture.target, "select count(*)::text from notes where token = 'late'"), ["1"]);
}

#[test]
fn a_stream_that_waits_for_a_lock_names_who_holds_it() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let stream = StoppedStream::new(&fixture.target);
    let said = fixture.refused(&["cutover", OWNER], "its worker waits for a lock. On the target, process");
    assert!(said.contains("idle in transaction for"), "{said}");
    drop(stream);
    fixture.done(&["cutover", OWNER]);
}

/// A process of a server that stands still until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(url: &str, kind: &str) -> Self {
        let process = strings(url, &format!("select pid::text from pg_stat_activity where backend_type = '{kind}'"));
        let process = process[0].parse().expect("a number");
        signal(process, "STOP");
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// A server flushes whole pages of its WAL, so what is flushed may end within a record of an open transaction. The rest
/// follows with the next commit, or when the background writer notes the open transactions, each 15 s.
#[test]
fn a_switch_waits_for_no_record_of_which_a_part_is_flushed() {
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["plain"]
        target = "$TARGET_URL"
    "#;
    let plain = "create table plain (id integer primary key); grant select, insert, update, delete on plain to shop_svc";
    let fixture = Fixture::two_clusters(plain, manifest);
    fixture.copied();
    let hook = ["--before-switch", "touch calm; until [ -e partly ]; do sleep 0.02; done"];
    let mut cutover = fixture.command(&[&["cutover", OWNER], &hook[..]].concat());
    let cutover = cutover.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    until("the stream is calm", || fixture.folder.path().join("calm").exists());
    let _stopped = Stopped::new(&fixture.target, "background writer");
    // No page gets full meanwhile.
    let begins_a_page = "select 'begins' where (pg_current_wal_insert_lsn() - '0/0') % 8192 < 3000";
    let partly = "select 'partly' where (pg_current_wal_flush_lsn() - '0/0') % 8192 = 0
        and pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()";
    block_on(async || {
        let mut holder = connect(&fixture.target).await.expect("a connection");
        let mut open = holder.begin().await.expect("begun");
        loop {
            open.execute("select pg_logical_emit_message(true, 'test', repeat('x', 20000))").await.expect("written");
            if !strings(&fixture.target, begins_a_page).is_empty() {
                break;
            }
        }
        until("a part is flushed", || !strings(&fixture.target, partly).is_empty());
        std::fs::write(fixture.folder.path().join("partly"), "").expect("written");
        let (code, text) = said(&cutover.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(0), "{text}");
        open.rollback().await.expect("ended");
    });
}

/// A server crashes at some moment of a switch and restarts: the same command does the rest.
fn a_server_crashes(cluster: usize) {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    for round in 0..8_u64 {
        let step = if round % 2 == 0 { "cutover" } else { "rollback" };
        let mut running =
            fixture.command(&[step, OWNER]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        std::thread::sleep(Duration::from_millis(40 + round * 15));
        fixture.clusters[cluster].stop(true).expect("crashed");
        running.wait().expect("ended");
        fixture.clusters[cluster].start_again().expect("started");
        fixture.done(&[step, OWNER]);
        fixture.done(&["verify", OWNER]);
        if step == "rollback" {
            fixture.done(&["detach", OWNER]);
        }
        // A service that starts now reads where the tables live, and can write there.
        let lives = fixture.done(&["status", OWNER]);
        let url = if lives.contains("live in the target") { &fixture.target } else { &fixture.source };
        execute(url, &format!("set role shop_svc; insert into notes (tenant_id, token) values (1, 'round {round}')"));
    }
    assert_eq!(strings(&fixture.source, "select count(*)::text from notes"), ["2008"]);
}

#[test]
fn the_target_may_crash_during_a_switch() {
    a_server_crashes(1);
}

#[test]
fn the_source_may_crash_during_a_switch() {
    a_server_crashes(0);
}

#[test]
fn without_a_superuser_it_moves_where_postgres_allows_that_and_is_refused_where_not() {
    let mut fixture =
        Fixture::two_clusters("", &MANIFEST.replace("target", "target_from_source = \"$TARGET_URL\"\n    target"));
    let version: u32 =
        strings(&fixture.source, "select current_setting('server_version_num')")[0].parse().expect("a number");
    for (cluster, database) in fixture.clusters.iter().zip(["before", "after"]) {
        let admin = cluster.url("postgres");
        execute(&admin, &format!("create role admin login replication password '{}'", cluster.password()));
        execute(&admin, &format!("alter database {database} owner to admin"));
        if version >= 160_000 {
            execute(&admin, "grant pg_create_subscription to admin");
        }
    }
    fixture.source = fixture.clusters[0].url_as("admin", "before");
    fixture.target = fixture.clusters[1].url_as("admin", "after");
    execute(&fixture.source, SCHEMA);
    if version < 160_000 {
        fixture.refused(&["copy", OWNER], "before Postgres 16 only a superuser can create a subscription");
        return;
    }
    for step in
        ["copy", "verify", "detach", "cutover", "verify", "rollback", "verify", "detach", "cutover", "verify", "complete"]
    {
        fixture.done(&[step, OWNER]);
    }
    fixture.assert_clean();
}
