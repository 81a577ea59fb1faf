//! How rows are copied: in parts, from one snapshot, under writes, and only once.

use std::process::{Child, Stdio};

use super::fixture::{Fixture, OWNER, execute, said, strings};

/// A table of more than one part, small ones, and one with partitions and a computed column.
const SCHEMA: &str = r#"
    create table big (id bigint primary key, filler text, n bigint not null default 0);
    alter table big alter column filler set storage plain;
    insert into big select i, repeat('x', 1000), 0 from generate_series(1, 90000) i;
    create index big_n on big (n);
    create table "Small one" (id integer primary key, "Of" text, twice integer generated always as (id * 2) stored);
    insert into "Small one" select i, 'text\N' || chr(9) || i from generate_series(1, 100) i;
    create table days (id integer, day date, primary key (id, day)) partition by range (day);
    create table days_1 partition of days for values from ('2026-01-01') to ('2027-01-01');
    create table days_2 partition of days for values from ('2027-01-01') to ('2028-01-01');
    insert into days select i, '2026-01-01'::date + i from generate_series(1, 500) i;
    create table keyless (said text);
    insert into keyless select 'line' from generate_series(1, 10);
    create table empty (id integer primary key);
"#;

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["big", '"Small one"', "days", "keyless", "empty"]
    target = "$TARGET_URL"
"#;

fn load(url: &str) -> Child {
    let statements = "do $$ begin
        for i in 1..1000000 loop
            update big set n = i where id = i % 90000;
            insert into big values (100000 + i, 'new', i);
            delete from big where id = 100000 + i - 7;
            insert into days values (i + 1000, '2027-05-05');
            insert into keyless values ('more');
            commit;
            perform pg_sleep(0.002);
        end loop;
    end $$";
    let mut psql = std::process::Command::new("psql");
    psql.arg(url).args(["-q", "-c", statements]).stdout(Stdio::null()).stderr(Stdio::null());
    psql.spawn().expect("psql runs")
}

fn end(mut load: Child) {
    load.kill().expect("killed");
    load.wait().expect("ended");
}

#[test]
fn rows_are_copied_in_parts_from_one_snapshot_while_they_change() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    let running = load(&fixture.source);
    fixture.done(&["copy", OWNER, "--jobs", "3"]);
    fixture.done(&["verify", OWNER]);
    end(running);
    let indexes = "select indexname::text from pg_indexes where tablename = 'big' order by 1";
    assert_eq!(strings(&fixture.target, indexes), ["big_n", "big_pkey"]);
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn a_copy_that_was_killed_does_not_copy_finished_tables_again() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    // The largest table comes first. Its two parts are the first to be noted.
    let mut copy = fixture.command(&["copy", OWNER, "--jobs", "1"]);
    let (_, text) = said(&copy.env("SPLITCTL_DIE_AT", "10").output().expect("it runs"));
    assert!(text.contains("dying at point 10: parts copied"), "{text}");
    let copied =
        "select format('%s of %s parts of %s', count(*), max(of_all), listed) from splitctl.copied_shop group by listed";
    assert_eq!(strings(&fixture.target, copied), ["2 of 2 parts of \"public\".\"big\""]);
    execute(
        &fixture.source,
        "update big set n = 5 where id <= 10; delete from days where id = 1; insert into empty values (1)",
    );
    fixture.done(&["copy", OWNER]);
    fixture.done(&["verify", OWNER]);
    let inserted = "select n_tup_ins::text from pg_stat_user_tables where relname = 'big'";
    assert_eq!(strings(&fixture.target, inserted), ["90000"]);
    let left = "select coalesce(to_regclass('splitctl.copied_shop')::text, 'none')";
    assert_eq!(strings(&fixture.target, left), ["none"]);
    fixture.done(&["cutover", OWNER]);
    assert_eq!(strings(&fixture.target, "select count(*)::text from big where n = 5"), ["10"]);
}

/// Foreign keys that are there before the rows forbid to truncate only those tables that have some.
#[test]
fn a_copy_into_tables_made_by_hand_begins_again_after_its_slot_was_lost() {
    let tables = "create table parents (id integer primary key);
        create table children (id integer primary key, parent_id integer references parents);";
    let schema = format!("{tables} insert into parents select generate_series(1, 100);");
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["parents", "children"]
        target = "$TARGET_URL"
    "#;
    let fixture = Fixture::two_clusters(&schema, manifest);
    execute(&fixture.target, tables);
    let mut copy = fixture.command(&["copy", OWNER]);
    let (_, text) = said(&copy.env("SPLITCTL_DIE_AT", "9").output().expect("it runs"));
    assert!(text.contains("dying at point 9: parts copied"), "{text}");
    let rows = "select count(*)::text from parents union all select count(*)::text from children";
    assert_eq!(strings(&fixture.target, rows), ["100", "0"]);
    let drop = "select pg_drop_replication_slot(slot_name)::text from pg_replication_slots where not active";
    assert_eq!(strings(&fixture.source, drop), [""]);
    fixture.done(&["copy", OWNER]);
    fixture.done(&["verify", OWNER]);
    assert_eq!(strings(&fixture.target, rows), ["100", "0"]);
    fixture.done(&["abort", OWNER]);
}
