//! The plan finds what would not replicate, before anything is changed.

use super::fixture::{Fixture, OWNER, execute, strings, try_execute};

/// Each table has one fault.
const SCHEMA: &str = r#"
    create unlogged table volatile (id integer primary key);
    create table faceless (id integer primary key);
    alter table faceless replica identity nothing;
    create table documents (document json);
    create table catalogued (id integer primary key, of regclass);
    create table parent (id integer primary key);
    create table child () inherits (parent);
    create table measured (id integer primary key, day date) partition by range (id);
    create table measured_1 partition of measured for values from (0) to (10);
    create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
    create table watched (id integer primary key);
    create trigger "Touch it" before insert on watched for each row execute function touch();
    alter table watched enable always trigger "Touch it";
    create rule quiet as on delete to watched do instead nothing;
    create table pictures (id integer primary key, picture oid);
    select lo_create(0);
    create sequence numbers;
    create table numbered (id integer primary key default nextval('numbers'));
    create table stays (id integer primary key default nextval('numbers'));
    create materialized view totals as select count(*) from numbered;
    create publication theirs for table numbered;
"#;

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "nobody_svc"
    tables = [
        "volatile", "faceless", "documents", "catalogued", "parent", "measured_1", "watched", "pictures", "numbered",
        "absent"
    ]
    views = ["totals", "numbered_view", "stays"]
    target = "$TARGET_URL"
    [owners.other]
    role = "other_svc"
    tables = ["measured"]
"#;

#[test]
fn every_fault_of_the_tables_is_a_finding_and_nothing_is_changed() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    let (code, said) = fixture.run(&["plan", OWNER]);
    assert_eq!(code, Some(1), "{said}");
    for finding in [
        "error: persistence: public.volatile: the table is unlogged",
        "error: keys: public.faceless: its replica identity is nothing",
        "error: types: public.documents: it has no key, and values of the type json of its column document",
        "error: types: public.catalogued.of: the column holds oids of this database's catalog (regclass)",
        "error: inheritance: public.child: it inherits from public.parent, and only one of them moves",
        "error: partitions: public.measured_1: it is a partition of a table that stays",
        "error: triggers: public.watched: the trigger \"Touch it\" also fires for replication",
        "error: large objects: public.pictures.picture: the column refers to large objects",
        "error: sequences: public.numbers: the table public.stays, which stays, uses this sequence too",
        "error: tables: absent: the source has no such table",
        "error: views: \"public\".\"numbered_view\": it does not exist",
        "error: views: \"public\".\"stays\": it is not a view",
        "error: roles: nobody_svc: the source has no such role",
        "error: roles: nobody_svc: the role has rights on the tables, and the target has no such role",
        "warning: keys: documents: no key identifies a row",
        "warning: rules: public.watched: the rule quiet does not apply to copied changes",
        "warning: publications: public.numbered: the publication theirs publishes it",
        "warning: cluster: source and target are one cluster",
        "note: target: the copy creates the tables there",
    ] {
        assert!(said.lines().any(|line| line.starts_with(finding)), "{finding}:\n{said}");
    }
    assert_eq!(strings(&fixture.source, "select coalesce(to_regnamespace('splitctl')::text, 'none')"), ["none"]);
}

/// As others' tools leave them. The extensions are not installed here, so their tables have the same columns.
const OTHERS: &str = r#"
    create table events (id bigint, day date, primary key (day, id)) partition by range (day);
    create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01');
    create table plain (id integer primary key, n integer);
    create schema partman;
    create table partman.part_config (
        parent_table text primary key, control text, partition_interval text, automatic_maintenance text default 'on'
    );
    insert into partman.part_config values ('public.events', 'day', '1 year'), ('public.gone', 'day', '1 day');
    create schema cron;
    create table cron.job (jobid bigint primary key, schedule text, command text);
    insert into cron.job values (1, '0 3 * * *', 'delete from events where day < now() - ''1 year''::interval'),
        (2, '0 4 * * *', 'vacuum others');
    insert into plain values (1, 1), (2, 1);
"#;

#[test]
fn whoever_else_works_with_the_tables_is_named_with_what_to_do() {
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["events", "plain"]
        target = "$TARGET_URL"
    "#;
    let fixture = Fixture::two_clusters(OTHERS, manifest);
    execute(&fixture.source, "select pg_create_logical_replication_slot('debezium', 'test_decoding')");
    assert!(try_execute(&fixture.source, "create unique index concurrently broken on plain (n)").is_err());
    let said = fixture.done(&["plan", OWNER]);
    for finding in [
        "warning: partitions: public.events: partman.part_config has its partitions made",
        "warning: jobs: events: a job of cron.job uses it (0 3 * * *: delete from events",
        "warning: slots: debezium: somebody reads changes by this slot (test_decoding, not in use)",
        "warning: indexes: public.broken: the index on public.plain is not valid",
    ] {
        assert!(said.lines().any(|line| line.starts_with(finding)), "{finding}:\n{said}");
    }
    assert!(!said.contains("vacuum others") && !said.contains("public.gone"), "{said}");
    // The rest of the move does not mind: the other slot stays, and an index that is not valid is no difference.
    fixture.copied();
    execute(&fixture.source, "drop index broken");
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, "select slot_name::text from pg_replication_slots"), ["debezium"]);
}

/// Citus is not installed here, so its catalog is a table with the same columns.
const ENGINES: &str = r#"
    create table spread (id integer primary key);
    create table local (id integer primary key);
    create access method ours type table handler heap_tableam_handler;
    create table columnar (id integer primary key) using ours;
    create table pg_dist_partition (logicalrelid regclass primary key, partmethod "char", partkey text);
    insert into pg_dist_partition values ('spread', 'h', 'id'), ('pg_class', 'n', null);
    insert into local select generate_series(1, 100000);
"#;

#[test]
fn tables_of_other_engines_are_refused_and_a_table_without_statistics_is_estimated() {
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["spread", "local", "columnar"]
        target = "$TARGET_URL"
    "#;
    let fixture = Fixture::two_clusters(ENGINES, manifest);
    let (code, said) = fixture.run(&["plan", OWNER]);
    assert_eq!(code, Some(1), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: engines: ")).collect();
    let [columnar, spread] = errors[..] else { panic!("{said}") };
    assert!(columnar.contains("public.columnar: the storage engine ours"), "{columnar}");
    assert!(spread.contains("spread: Citus distributes the table on the source"), "{spread}");
    let tables = said.lines().find_map(|line| line.strip_prefix("note: tables: 3 tables, about ")).expect("a note");
    let rows: f64 = tables.split(' ').next().and_then(|rows| rows.parse().ok()).expect("a number");
    assert!((50_000.0..200_000.0).contains(&rows), "{tables}");
}

#[test]
fn status_names_the_command_that_takes_a_crossing_off() {
    let schema = "create table notes (id integer primary key);
        create table members (id integer primary key);
        create view known as select n.id from notes n join members using (id);
        alter table members add constraint told check (id > 0)";
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["notes"]
        target = "$TARGET_URL"
        [owners.other]
        role = "other_svc"
        tables = ["members"]
        views = ["known"]
        [[borrowings]]
        who = "other"
        what = "known"
        why = "it reads notes"
        until = "2099-01-01"
        replace = "replace.sql"
        restore = "restore.sql"
    "#;
    let fixture = Fixture::one_cluster(schema, manifest);
    fixture.copied();
    let next = || fixture.done(&["status", OWNER]).lines().find_map(|line| line.strip_prefix("next: ").map(str::to_owned));
    assert_eq!(next().as_deref(), Some("splitctl replace known"));
    execute(&fixture.source, "create or replace view known as select id from members");
    assert_eq!(next().as_deref(), Some("splitctl cutover shop"));
    execute(&fixture.source, "alter table members add constraint of_notes foreign key (id) references notes");
    assert_eq!(next().as_deref(), Some("splitctl detach shop"));
}

/// An image may have `pg_dump` and not what belongs to it.
#[test]
fn the_plan_says_which_program_is_missing() {
    let schema = "create table numbered (id integer primary key)";
    let manifest = r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["numbered"]
        target = "$TARGET_URL"
    "#;
    let fixture = Fixture::one_cluster(schema, manifest);
    let folder = tempfile::tempdir().expect("a folder");
    let whole = fixture.command(&["plan", OWNER]);
    let programs = whole.get_envs().find(|(name, _)| *name == "POSTGRES_BIN_DIR").and_then(|(_, value)| value).expect("set");
    let pg_dump = folder.path().join("pg_dump");
    std::os::unix::fs::symlink(std::path::Path::new(programs).join("pg_dump"), &pg_dump).expect("a link");
    let mut lacking = fixture.command(&["plan", OWNER]);
    let said = lacking.env("POSTGRES_BIN_DIR", folder.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let missing = format!("error: pg_dump: pg_restore: not beside {}", pg_dump.display());
    assert!(said.contains(&missing), "{said}");
}
