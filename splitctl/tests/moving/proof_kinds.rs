//! Faults of the target that the catalog does not show as such: each is named before the switch, with what to do.

use super::fixture::execute;
use super::proof::{fixture, prove, texts};

/// More for both sides: what only statements use, and a policy that calls a function.
const MORE: &str = "
    create collation app.plain (provider = libc, locale = 'C');
    create text search configuration app.words (copy = simple);
    create operator app.=~~ (leftarg = text, rightarg = text, function = texteq);
    create type app.pair as (a integer, b integer);
    create function app.mine(integer) returns boolean language sql stable as 'select $1 = 1';
    revoke execute on function app.mine(integer) from public;
    grant execute on function app.mine(integer) to shop_svc;
    create function app.pick(integer) returns text language sql stable as $$ select 'int' $$;
    grant usage on schema app to shop_svc;
";

/// A statement, what breaks it on the target, what repairs that, and what the error says.
const KINDS: [(&str, &str, &str, &str); 8] = [
    (
        "select token collate plain from notes",
        "drop collation app.plain",
        "create collation app.plain (provider = libc, locale = 'C')",
        "The target has no collation app.plain: create it there",
    ),
    (
        "select to_tsvector('words', token) from notes",
        "drop text search configuration app.words",
        "create text search configuration app.words (copy = simple)",
        "The target has no text search configuration app.words: create it there",
    ),
    (
        "select id from notes where token operator(app.=~~) $1",
        "drop operator app.=~~ (text, text)",
        "create operator app.=~~ (leftarg = text, rightarg = text, function = texteq)",
        "operator does not exist",
    ),
    (
        "select (row(1, 2)::pair).a",
        "drop type app.pair",
        "create type app.pair as (a integer, b integer)",
        "The target has no type app.pair: create it there",
    ),
    (
        "select id from notes",
        "create policy mine on app.notes using (app.mine(tenant_id)); alter table app.notes enable row level security;
         revoke execute on function app.mine(integer) from shop_svc",
        "drop policy mine on app.notes; alter table app.notes disable row level security;
         grant execute on function app.mine(integer) to shop_svc",
        "permission denied for function mine",
    ),
    (
        "select pick(tenant_id) from notes",
        "create function app.pick(bigint) returns bigint language sql as 'select 1'; drop function app.pick(integer)",
        "drop function app.pick(bigint);
         create function app.pick(integer) returns text language sql stable as $$ select 'int' $$",
        "the function pick is app.pick(integer) on the source, and app.pick(bigint) on the target",
    ),
    (
        "select token from app.notes where mood = 'sad'",
        "alter role shop_svc in database after set default_transaction_read_only = on",
        "alter role shop_svc in database after reset default_transaction_read_only",
        "default_transaction_read_only: the application's sessions have `on` on the target",
    ),
    (
        "select token, mood from notes",
        "alter role shop_svc in database after set search_path = public",
        "alter role shop_svc in database after set search_path = app, public",
        "the search_path of shop_svc does not find it",
    ),
];

#[test]
fn each_kind_of_fault_that_only_statements_show_is_named() {
    let fixture = fixture("");
    for url in [&fixture.source, &fixture.target] {
        execute(url, MORE);
    }
    for (statement, breaks, repairs, expected) in KINDS {
        std::fs::write(fixture.folder.path().join("queries.sql"), statement).expect("written");
        let proof = prove(&fixture, &[]);
        assert_eq!(texts(&proof, "error"), Vec::<String>::new(), "{statement}");
        assert_eq!(proof["statements"], 1, "{statement}: {proof:#}");
        execute(&fixture.target, breaks);
        let errors = texts(&prove(&fixture, &[]), "error");
        assert!(errors.iter().any(|error| error.contains(expected)), "{statement}: {errors:#?}");
        execute(&fixture.target, repairs);
    }
}
