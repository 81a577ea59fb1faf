//! The proof writes to each table as the application's role, and nothing of it stays.

use serde_json::Value;

use super::fixture::{Fixture, execute, strings};
use super::not_ours;
use super::proof::{QUERIES, fixture, prove, texts};

/// What a proof may not change: rows, sequences, rights, definitions.
fn state_of(url: &str, tables: &[&str]) -> Vec<String> {
    let mut state = strings(
        url,
        "select schemaname || '.' || sequencename || ' ' || coalesce(last_value::text, '') from pg_sequences
         union all select oid::regclass || ' ' || coalesce(relacl::text, '') from pg_class where oid >= 16384
         union all select nspname || coalesce(nspacl::text, '') from pg_namespace
         union all select tgrelid::regclass || tgname || tgenabled::text from pg_trigger
         order by 1",
    );
    for table in tables {
        state.extend(strings(
            url,
            &format!("select md5(coalesce(string_agg(t::text, ',' order by t::text), '')) from {table} t"),
        ));
    }
    state
}

/// What became of the writes: `insert on notes: done`.
fn written(proof: &Value) -> Vec<String> {
    let lines = proof["written"].as_array().expect("a list").iter();
    let text = |one: &Value, field: &str| one[field].as_str().expect("text").to_owned();
    lines.map(|one| format!("{} on {}: {}", text(one, "write"), text(one, "table"), text(one, "result"))).collect()
}

#[test]
fn each_kind_of_table_is_written_on_both_sides_and_nothing_stays() {
    let fixture = Fixture::one_cluster(not_ours::SCHEMA, not_ours::MANIFEST);
    fixture.copied();
    let tables = ["parents", "\"Odd schema\".\"Order Items\"", "events", "log_lines"];
    let before = state_of(&fixture.target, &tables);
    let proof = prove(&fixture, &["--writes"]);
    assert_eq!(texts(&proof, "error"), Vec::<String>::new());
    let rules: Vec<String> = texts(&proof, "note").into_iter().filter(|note| note.contains("both sides")).collect();
    assert_eq!(rules, Vec::<String>::new());
    let mut expected = Vec::new();
    for table in ["\"Odd schema\".\"Order Items\"", "events", "log_lines", "parents"] {
        expected.extend(["insert", "update", "delete"].map(|write| format!("{write} on {table}: done")));
    }
    assert_eq!(written(&proof), expected);
    assert_eq!(state_of(&fixture.target, &tables), before);
    assert_eq!(strings(&fixture.source, "select count(*)::text from parents"), ["3000"]);
}

#[test]
fn what_a_trigger_needs_and_hides_is_found_by_writing() {
    let fixture = fixture(QUERIES);
    let trigger = |table: &str| {
        format!(
            "create function app.check_tenant() returns trigger language plpgsql as $$
                 begin
                     execute format('select from app.%I', '{table}');
                     return new;
                 end $$;
             create trigger notes_tenant before insert on app.notes for each row execute function app.check_tenant()"
        )
    };
    execute(&fixture.source, &trigger("tenants"));
    execute(&fixture.target, &trigger("tenants"));
    assert_eq!(texts(&prove(&fixture, &[]), "error"), Vec::<String>::new());
    let proof = prove(&fixture, &["--writes"]);
    let errors = texts(&proof, "error");
    assert!(errors.len() == 1 && errors[0].contains("insert on app.notes"), "{errors:#?}");
    assert!(errors[0].contains("The table app.tenants stays in the source"), "{errors:#?}");
    assert!(errors[0].contains("in PL/pgSQL function check_tenant()"), "{errors:#?}");
    assert_eq!(written(&proof), ["insert on app.notes: refused", "update on app.notes: done", "delete on app.notes: done"]);
}

#[test]
fn the_rules_of_the_application_are_no_errors_and_what_reaches_outside_is_not_run() {
    let fixture = fixture(QUERIES);
    let rule = "create function app.refuse() returns trigger language plpgsql as $$
                    begin raise exception 'notes are full'; end $$;
                create trigger notes_full before insert on app.notes for each row execute function app.refuse()";
    for url in [&fixture.source, &fixture.target] {
        execute(url, rule);
    }
    let proof = prove(&fixture, &["--writes"]);
    assert_eq!(texts(&proof, "error"), Vec::<String>::new());
    let notes = texts(&proof, "note");
    assert!(
        notes.iter().any(|note| note.contains("own rules refuse it on both sides: notes are full (P0001")),
        "{notes:#?}"
    );
    let outside = "create function app.say(text) returns void language sql as $$ select pg_notify('notes', $1) $$;
                   create or replace function app.refuse() returns trigger language plpgsql as $$
                       begin perform app.say('new'); return new; end $$;";
    for url in [&fixture.source, &fixture.target] {
        execute(url, outside);
    }
    let proof = prove(&fixture, &["--writes"]);
    assert_eq!(written(&proof), ["insert on app.notes: not tried: its trigger notes_full reaches outside"]);
    let listed = proof["outside"].as_array().expect("a list");
    assert!(listed.len() == 1 && listed[0].to_string().contains("app.refuse(): it calls app.say("), "{listed:?}");
}

#[test]
fn a_function_of_an_extension_that_postgres_does_not_trust_reaches_outside_and_one_that_it_trusts_does_not() {
    let fixture = fixture(QUERIES);
    let available = "select name::text from pg_available_extensions where name in ('dblink', 'citext')";
    if strings(&fixture.source, available).len() < 2 {
        eprintln!("skipped: this server has no dblink or no citext");
        return;
    }
    let calls = |call: &str| {
        format!(
            "create or replace function app.tell() returns trigger language plpgsql as $$
                 begin perform {call}; return new; end $$;
             create or replace trigger notes_tell before update on app.notes for each row execute function app.tell()"
        )
    };
    for url in [&fixture.source, &fixture.target] {
        execute(url, "create extension dblink schema app; create extension citext schema app");
        execute(url, &calls("app.citext_eq('a'::app.citext, 'b')"));
    }
    assert!(written(&prove(&fixture, &["--writes"])).contains(&"update on app.notes: done".to_owned()));
    for url in [&fixture.source, &fixture.target] {
        execute(url, &calls("app.dblink_exec('dbname=postgres', 'select 1')"));
    }
    let proof = prove(&fixture, &["--writes"]);
    assert_eq!(written(&proof), ["insert on app.notes: not tried: its trigger notes_tell reaches outside"]);
}

/// Tables whose next row is hard to make: keys of foreign keys only, constraints that exclude, few rights.
const HARD: &str = r"
    create table parents (id uuid primary key default gen_random_uuid(), email text not null);
    create unique index parents_email on parents (lower(email));
    create table profiles (parent_id uuid primary key references parents, said text);
    create table friends (
        one uuid not null references parents,
        other uuid not null references parents,
        primary key (one, other)
    );
    create table nodes (
        code varchar(6) primary key check (code ~ '^[A-Z]{2}[0-9]{4}$'),
        up varchar(6) references nodes deferrable initially deferred
    );
    create table bookings (
        id bigint generated always as identity primary key,
        room integer not null,
        span int4range not null,
        exclude using gist (span with &&)
    );
    create table parts (kind text not null, number smallint not null, primary key (kind, number)) partition by list (kind);
    create table parts_a partition of parts for values in ('a');
    create table notices (id serial primary key, said text not null, hidden text);
    create function stamp() returns trigger language plpgsql as $$ begin return null; end $$;
    create constraint trigger notices_later after insert on notices deferrable initially deferred
        for each row execute function stamp();
    insert into parents (email) values ('Ada@example.org'), ('Bob@example.org');
    insert into profiles select id, 'x' from parents;
    insert into friends select a.id, b.id from parents a join parents b on a.id <> b.id;
    insert into nodes values ('AB0001', null), ('AB0002', 'AB0001');
    insert into bookings (room, span) values (1, '[1,5)');
    insert into parts values ('a', 1);
    insert into notices (said, hidden) values ('one', 'secret');
    grant select, insert, update, delete on parents, profiles, friends, nodes, bookings, parts to shop_svc;
    grant select (id, said), insert (said), update (said) on notices to shop_svc;
    grant usage on sequence notices_id_seq to shop_svc;
";

#[test]
fn rows_are_written_that_no_sequence_makes_and_within_the_rights_of_the_role() {
    let tables = ["bookings", "friends", "nodes", "notices", "parents", "parts", "profiles"];
    let listed = tables.map(|table| format!("\"{table}\"")).join(", ");
    let manifest = not_ours::MANIFEST
        .replace(r#""parents", '"Odd schema"."Order Items"', "events", "log_lines""#, &listed)
        .replace("views = [\"happy\"]", "")
        .replace("tables = [\"tenants\"]", "tables = [\"others\"]");
    let schema = format!("create table others (id integer primary key); {HARD}");
    let fixture = Fixture::one_cluster(&schema, &manifest);
    fixture.copied();
    let before = state_of(&fixture.target, &tables);
    let proof = prove(&fixture, &["--writes"]);
    assert_eq!(texts(&proof, "error"), Vec::<String>::new());
    let refused: Vec<String> = written(&proof).into_iter().filter(|line| !line.ends_with(": done")).collect();
    let notes = texts(&proof, "note");
    assert_eq!(refused, ["delete on notices: not tried: the role has no right to it, or reads no key"], "{notes:#?}");
    assert_eq!(written(&proof).len(), 3 * tables.len());
    assert_eq!(state_of(&fixture.target, &tables), before);
    // A right that only a default needs is missed by the write that uses it.
    fixture.done(&["cutover", super::fixture::OWNER]);
    execute(&fixture.target, "revoke usage on sequence notices_id_seq from shop_svc");
    let errors = texts(&prove(&fixture, &["--writes", "--on", "target"]), "error");
    assert!(errors.len() == 1 && errors[0].contains("permission denied for sequence notices_id_seq"), "{errors:#?}");
}
