//! What a copy, a comparison or a switch would trip over is found by the plan, or does no harm.

use super::fixture::{Fixture, OWNER, execute, strings, try_execute};

fn manifest(tables: &str, more: &str) -> String {
    format!(
        r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = [{tables}]
        target = "$TARGET_URL"
        {more}
        [owners.other]
        role = "other_svc"
        tables = ["stays"]
        "#
    )
}

fn version(fixture: &Fixture) -> i32 {
    let version = strings(&fixture.source, "select current_setting('server_version_num')");
    version[0].parse::<i32>().expect("a number") / 10_000
}

/// Sequences at both ends of what they can be, a materialised view that cannot be filled, and settings of the database that
/// are not splitctl's own.
const ODD: &str = "
    create sequence down increment -1;
    create sequence last minvalue -9223372036854775808 start -9223372036854775808;
    create table notes (
        id bigint primary key default nextval('down'), x bigint default nextval('last'), said text default 'a'
    );
    insert into notes default values;
    create materialized view impossible as select 1 / (id + 1) as x from notes with no data;
    create table stays (id integer primary key);
    grant all on notes to shop_svc;
    grant usage on down, last to shop_svc;
    do $$ begin
        execute format('alter database %I set standard_conforming_strings = off', current_database());
        execute format('alter database %I set timezone_abbreviations = %L', current_database(), 'Australia');
    end $$";

#[test]
fn odd_sequences_unfilled_views_and_settings_of_the_database_do_no_harm() {
    let fixture = Fixture::two_clusters(ODD, &manifest("\"notes\"", "views = [\"impossible\"]"));
    fixture.copied();
    for _ in 0..2 {
        fixture.done(&["cutover", OWNER]);
        execute(&fixture.target, "set role shop_svc; insert into notes default values");
        assert_eq!(try_execute(&fixture.target, "select * from impossible"), Err("55000".to_owned()), "not populated");
        fixture.done(&["verify", OWNER]);
        fixture.done(&["rollback", OWNER]);
        execute(&fixture.source, "set role shop_svc; insert into notes default values");
        fixture.done(&["verify", OWNER]);
    }
    let ids = strings(&fixture.source, "select id::text from notes order by id desc");
    assert_eq!(ids.len(), 5, "{ids:?}");
}

/// What uses the moving table and is no table's own: a domain's check, an aggregate, a foreign table, event triggers.
const BESIDE: &str = "
    create table notes (id integer primary key);
    create table stays (id integer primary key);
    create function noted(integer) returns boolean language sql stable as
        'select exists (select from public.notes where id = $1)';
    create domain note_id as integer check (noted(value));
    create table columns_stay (id integer primary key, note note_id[]) partition by range (id);
    create table columns_stay_1 partition of columns_stay for values from (0) to (10);
    create table also_stays (id integer primary key, note note_id);
    create function add_noted(boolean, integer) returns boolean language sql as
        'select coalesce($1, true) and public.noted($2)';
    create aggregate all_noted(integer) (sfunc = add_noted, stype = boolean);
    create view counted as select all_noted(id) from stays;
    create foreign data wrapper nowhere;
    create server nowhere foreign data wrapper nowhere;
    create foreign table rates (id integer) server nowhere;
    create function rate() returns trigger language plpgsql as
        'begin perform from public.rates; return new; end';
    create trigger rate before insert on notes for each row execute function rate();
    create function note_ddl() returns event_trigger language plpgsql as
        'begin insert into public.notes values (1); end';
    create event trigger note_ddl on ddl_command_end when tag in ('CREATE AGGREGATE') execute function note_ddl();
    create function say_ddl() returns event_trigger language plpgsql as 'begin end';
    create event trigger say_ddl on ddl_command_end when tag in ('CREATE AGGREGATE') execute function say_ddl();
    grant all on notes to shop_svc";

#[test]
fn what_uses_the_tables_by_a_type_an_aggregate_or_an_event_is_named() {
    let fixture = Fixture::two_clusters(BESIDE, &manifest("\"notes\"", ""));
    let said = fixture.refused(
        &["plan", OWNER],
        "domain constraint note_id_check on public.note_id: it uses public.notes (through noted(integer)), which moves:",
    );
    for finding in [
        "error: crossings: event trigger note_ddl: its function uses public.notes, which moves: drop the event trigger",
        "warning: event triggers: say_ddl: this event trigger does not come along",
        "view public.counted: it uses public.notes (through add_noted(boolean, integer)), which moves",
        "trigger rate on public.notes: it uses public.rates (through rate()), which stays",
    ] {
        assert!(said.contains(finding), "{finding}\n{said}");
    }
}

/// Identities with a generated column.
const GENERATED: &str = "
    create table keyed (a integer, twice integer generated always as (a * 2) stored primary key);
    create table keyless (a integer, twice integer generated always as (a * 2) stored);
    create table stays (id integer primary key);
    grant all on keyed, keyless to shop_svc";

#[test]
fn an_identity_with_a_generated_column_is_an_error_of_the_plan() {
    let fixture = Fixture::two_clusters(GENERATED, &manifest("\"keyed\", \"keyless\"", ""));
    let said = fixture.refused(&["plan", OWNER], "error: keys: public.keyed: its key has the generated column twice");
    assert_eq!(said.contains("error: keys: public.keyless: a whole row identifies it"), version(&fixture) >= 18, "{said}");
}

#[test]
fn what_the_targets_server_cannot_create_is_an_error_of_the_plan() {
    let schema = "create table notes (id integer primary key); create table stays (id integer primary key);
        grant all on notes to shop_svc";
    let fixture = Fixture::two_clusters(schema, &manifest("\"notes\"", ""));
    let path = format!("{}/../fast", strings(&fixture.source, "select current_setting('data_directory')")[0]);
    // The server itself makes a folder that it may use.
    execute(&fixture.source, &format!("copy (select 1) to program 'mkdir {path}'"));
    execute(&fixture.source, &format!("create tablespace fast location '{path}'"));
    execute(&fixture.source, "create index placed on notes (id) tablespace fast");
    fixture.refused(
        &["plan", OWNER],
        "error: target: public.placed: it has the tablespace fast, which the target's server cannot",
    );
    // What is there already is not created.
    execute(&fixture.target, "create table notes (id integer primary key); create index placed on notes (id)");
    fixture.done(&["plan", OWNER]);
}

#[test]
fn a_key_without_overlaps_is_no_key_for_comparisons() {
    let fixture = Fixture::two_clusters("create table stays (id integer primary key)", &manifest("\"bookings\"", ""));
    let extensions = "select name::text from pg_available_extensions where name = 'btree_gist'";
    if version(&fixture) < 18 || strings(&fixture.source, extensions).is_empty() {
        return;
    }
    for url in [&fixture.source, &fixture.target] {
        execute(url, "create extension btree_gist");
    }
    execute(
        &fixture.source,
        "create table bookings (id integer, during daterange, primary key (id, during without overlaps));
         insert into bookings select i, '[2026-01-01,2026-02-01)' from generate_series(1, 100) i;
         grant all on bookings to shop_svc",
    );
    fixture.copied();
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role shop_svc; update bookings set id = id + 1000 where id < 10");
    fixture.done(&["verify", OWNER]);
}
