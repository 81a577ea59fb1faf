//! Schemas beside those of the other tests: what a move would lose, open or stop at comes along, or the plan names it.

use super::fixture::{Fixture, OWNER, cluster_with, execute, strings, try_execute};

fn manifest(top: &str, more: &str) -> String {
    format!(
        r#"
        source = "$SOURCE_URL"
        {top}
        [owners.shop]
        role = "shop_svc"
        tables = ["notes"]
        target = "$TARGET_URL"
        {more}
        [owners.other]
        role = "other_svc"
        tables = ["members"]
        "#
    )
}

/// A table that moves, one that stays, and what the test adds.
fn schema(more: &str) -> String {
    format!(
        "create table notes (id integer primary key, said text);
         create table members (id integer primary key, said text);
         insert into notes values (1, 'one');
         insert into members values (1, 'one');
         grant select, insert, update, delete on notes to shop_svc;
         grant all on members to other_svc;
         {more}"
    )
}

const OF_A_SUPERUSER: &str = "
    create function say(id integer, said text) returns bigint language sql security definer set search_path = public
        as 'insert into notes values (id, said); select count(*) from notes';
    create procedure forget(\"from\" integer, until timestamp with time zone) language sql security definer
        set search_path = public as 'delete from notes where id >= \"from\"';
    revoke execute on function say(integer, text) from public;
    grant execute on function say(integer, text) to shop_svc;
    create function report() returns bigint language sql security definer set search_path = public
        as 'select count(*) from notes';
    revoke execute on function report() from public;
    grant execute on function report() to other_svc;
";

#[test]
fn a_function_that_runs_as_a_superuser_is_closed_with_the_tables_and_comes_along_whoever_calls_it() {
    let fixture = Fixture::two_clusters(&schema(OF_A_SUPERUSER), &manifest("", ""));
    let before = [fixture.definitions(&fixture.source), fixture.definitions(&fixture.target)];
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
    let [say, forget, report] = [
        "set role shop_svc; select say((random() * 1e9)::integer, 'new')",
        "set role shop_svc; call forget(5, now())",
        "set role other_svc; select report()",
    ];
    for (url, expected) in [(&fixture.source, Err("42501".to_owned())), (&fixture.target, Ok(()))] {
        for call in [say, forget, report] {
            assert_eq!(try_execute(url, call), expected, "{call}");
        }
    }
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    for (url, expected) in [(&fixture.target, Err("42501".to_owned())), (&fixture.source, Ok(()))] {
        for call in [say, forget, report] {
            assert_eq!(try_execute(url, call), expected, "{call}");
        }
    }
    fixture.done(&["abort", OWNER]);
    fixture.assert_as(&before, "after the abort");
}

const NAMED: &str = "
    create table \"schema_migrations\" (version text primary key);
    create type grade as enum ('good', 'bad');
    create table tool_log (id integer primary key, grade grade default 'good');
    create table empty_one ();
    create domain relation as regclass;
    create domain blob as oid;
    create type spot as (place point);
    create table oddities (id integer primary key, kind relation, file blob);
    create table spots (spot spot);
    create table kept (id integer primary key, note notes, notes notes[]);
    create function of_two(integer, integer) returns integer language sql as 'select 1 from notes, members';
    create aggregate counted (integer) (sfunc = of_two, stype = integer, initcond = '0');
    create operator <+> (leftarg = integer, rightarg = integer, function = of_two);
    create domain checked as integer check (of_two(value, 1) > 0);
    create view of_one as select notes.* from notes;
    grant select on empty_one, oddities, spots to shop_svc;
    select lo_create(4711);
";

#[test]
fn what_a_copy_or_a_detach_would_stop_at_is_named_by_the_plan() {
    let odd =
        manifest(r#"unowned = ["tool_log"]"#, "").replace(r#"["notes"]"#, r#"["notes", "empty_one", "oddities", "spots"]"#);
    let fixture = Fixture::one_cluster(&schema(NAMED), &odd);
    execute(&fixture.target, "alter database after connection limit 0");
    let said = fixture.refused(&["plan", OWNER], "error: columns: public.empty_one: it has no column");
    for finding in [
        "error: types: public.oddities.kind: the column holds oids of this database's catalog (regclass)",
        "error: types: public.spots: it has no key, and values of the type point of its column spot",
        "error: large objects: public.oddities.file",
        "error: row types: public.kept.note: it uses the row type public.notes",
        "error: row types: public.kept.notes: it uses the row type public.notes[]",
        "error: unowned: tool_log: it needs type public.grade",
        "warning: unowned: schema_migrations: it looks like the table of a migration tool",
        "error: crossings: aggregate public.counted(integer): it uses function public.of_two(integer,integer)",
        "error: crossings: operator public.<+>(integer,integer)",
        "error: database: \"after\": the target's database takes no connection: run `alter database \"after\"",
    ] {
        assert!(said.contains(finding), "{finding}: {said}");
    }
    assert!(said.contains("checked") && !said.contains("of_one.notes"), "{said}");
}

const EXTENSION: &str = "
    create schema ext;
    create extension hstore schema ext;
    alter table notes add column more ext.hstore;
";

#[test]
fn an_extension_in_another_schema_and_a_target_in_another_encoding_are_refused() {
    let mut fixture = Fixture::one_cluster(&schema(""), &manifest("", ""));
    let cluster = fixture.clusters[0].url("postgres");
    execute(&cluster, "create database narrow encoding 'LATIN1' template template0 locale 'C'");
    let after = std::mem::replace(&mut fixture.target, fixture.clusters[0].url("narrow"));
    fixture.refused(&["plan", OWNER], "error: encoding: target: its encoding is LATIN1");
    fixture.target = after;
    // Not every package of Postgres has this extension.
    if !strings(&fixture.source, "select name::text from pg_available_extensions where name = 'hstore'").is_empty() {
        execute(&fixture.source, EXTENSION);
        execute(&fixture.target, "create extension hstore");
        fixture.refused(&["plan", OWNER], "run `alter extension hstore set schema \"ext\"`");
        execute(&fixture.target, "create schema ext; alter extension hstore set schema ext");
    }
    fixture.done(&["plan", OWNER]);
}

const ACCENTS: &str = "
    alter table notes add column \"größe\" text default 'é' check (\"größe\" <> 'ü');
    comment on table notes is 'naïve';
";

#[test]
fn definitions_in_an_encoding_of_the_clients_arrive_as_they_are() {
    let accents = format!(
        "{ACCENTS} do $$ begin execute format('alter database %I set client_encoding = latin1', current_database()); end $$"
    );
    let fixture = Fixture::two_clusters(&schema(&accents), &manifest("", ""));
    fixture.copied();
    arrived(&fixture);
}

#[test]
fn databases_in_another_encoding_than_utf_8_can_move() {
    let mut fixture = Fixture::two_clusters("", &manifest("", ""));
    for cluster in &fixture.clusters {
        execute(&cluster.url("postgres"), "create database narrow encoding 'LATIN1' template template0 locale 'C'");
    }
    (fixture.source, fixture.target) = (fixture.clusters[0].url("narrow"), fixture.clusters[1].url("narrow"));
    execute(&fixture.source, &schema(ACCENTS));
    fixture.copied();
    arrived(&fixture);
    for step in ["cutover", "verify", "rollback", "abort"] {
        fixture.done(&[step, OWNER]);
    }
}

fn arrived(fixture: &Fixture) {
    let found = "select obj_description('notes'::regclass) || column_default
        from information_schema.columns where column_name = 'größe'";
    assert_eq!(strings(&fixture.target, found), ["naïve'é'::text"]);
}

const CROSSING: &str = "
    create role reader login;
    create role lesser login;
    alter table members enable row level security;
    create policy own on members using (said = current_user);
    create view pairs as select n.id, m.said from notes n, members m;
    grant select on pairs to reader with grant option;
    create materialized view counted as select id, said, count(*) as n from pairs group by id, said;
    create unique index on counted (id);
    create statistics related on id, n from counted;
    comment on statistics related is 'related';
    create function crossing() returns bigint language sql as 'select count(*) from notes, members';
    grant execute on function crossing() to reader with grant option;
    set role reader;
    grant select (id) on pairs to lesser;
    grant execute on function crossing() to lesser;
    reset role;
";

#[test]
fn grants_of_other_grantors_statistics_and_views_below_row_security_come_back() {
    let fixture = Fixture::one_cluster(&schema(CROSSING), &manifest("", ""));
    let before = [fixture.definitions(&fixture.source), fixture.definitions(&fixture.target)];
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let there = "select coalesce(to_regclass('pairs')::text, to_regclass('counted')::text, 'none')";
    assert_eq!(strings(&fixture.source, there), ["none"]);
    fixture.done(&["attach", OWNER]);
    assert_eq!(strings(&fixture.source, "select count(*)::text from counted"), ["1"]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_as(&before, "after the abort");
}

const BOTH: &str = "
    create function deeper(integer) returns boolean language sql stable
        as 'select exists (select from notes n, members m where n.id = $1 and m.id = $1)';
    create function sees(integer) returns boolean language sql stable as 'select deeper($1)';
    alter table notes enable row level security;
    create policy all_rows on notes using (true);
    create policy by_both on notes using (sees(id));
";

#[test]
fn a_function_that_only_a_policy_left_behind_calls_stays_with_it() {
    let left = manifest("", r#"leave = ["policy by_both on public.notes"]"#);
    let fixture = Fixture::two_clusters(&schema(BOTH), &left);
    let before = [fixture.definitions(&fixture.source), fixture.definitions(&fixture.target)];
    fixture.copied();
    for step in ["cutover", "verify", "rollback", "abort"] {
        fixture.done(&[step, OWNER]);
    }
    fixture.assert_as(&before, "after the abort");
}

#[test]
fn a_prepared_transaction_that_holds_a_table_is_named() {
    let clusters = vec![cluster_with(&["max_prepared_transactions=2"]).expect("a cluster")];
    let fixture = Fixture::new(clusters, &schema(""), &manifest("", ""));
    fixture.copied();
    execute(&fixture.source, "begin; update notes set said = 'held'; prepare transaction 'forgotten'");
    let switch = ["cutover", OWNER, "--lock-attempts", "2"];
    fixture.refused(&switch, "the prepared transaction 'forgotten'");
    execute(&fixture.source, "rollback prepared 'forgotten'");
    fixture.done(&["cutover", OWNER]);
}

/// Postgres 18 can have these.
const NEW_IN_18: &str = "
    alter table notes add column twice integer generated always as (id * 2) virtual;
    alter table notes add column member integer references members (id) not enforced;
    alter table notes add constraint short check (length(said) < 2) not enforced;
    create table lines (id integer primary key, note_id integer references notes (id) not enforced);
    insert into lines values (1, 1), (2, 7);
    update notes set member = 7;
    grant select, insert, update, delete on lines to shop_svc;
";

#[test]
fn keys_and_checks_that_are_not_enforced_and_virtual_columns_come_along_and_come_back() {
    let tables = manifest("", "").replace(r#"tables = ["notes"]"#, r#"tables = ["notes", "lines"]"#);
    let fixture = Fixture::one_cluster(&schema(""), &tables);
    let version = strings(&fixture.source, "select current_setting('server_version_num')");
    if version[0].as_str() < "180000" {
        return;
    }
    execute(&fixture.source, NEW_IN_18);
    let before = [fixture.definitions(&fixture.source), fixture.definitions(&fixture.target)];
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    let constraints = "select conname || pg_get_constraintdef(oid) from pg_constraint where not conenforced order by 1";
    assert_eq!(strings(&fixture.target, constraints).len(), 2);
    assert_eq!(strings(&fixture.target, "select twice::text from notes"), ["2"]);
    for step in ["detach", "attach", "detach", "verify", "cutover", "verify", "rollback", "abort"] {
        fixture.done(&[step, OWNER]);
    }
    fixture.assert_as(&before, "after the abort");
}
