//! The plan finds what would not replicate, before anything is changed.

use super::fixture::{Fixture, OWNER, strings};

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
        "error: inheritance: public.parent: the table has children",
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
