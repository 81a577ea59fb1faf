//! What the application runs is tried on the other side, as its own role, before anybody waits.

use serde_json::Value;

use super::fixture::{Fixture, OWNER, execute, strings};

/// The role finds its tables, a helper and a type by its search path, and uses a table that stays.
pub const SCHEMA: &str = r#"
    create schema app;
    create schema kinds;
    create type kinds.mood as enum ('sad', 'ok');
    create table app.tenants (id integer primary key, name text);
    create table app.notes (
        id bigint generated always as identity primary key,
        tenant_id integer not null,
        token text not null unique,
        mood kinds.mood not null default 'ok'
    );
    insert into app.tenants values (1, 'one');
    insert into app.notes (tenant_id, token) select 1, 'note ' || i from generate_series(1, 100) i;
    create function app.shorten(text) returns text language sql stable as 'select left($1, 3)';
    revoke execute on function app.shorten(text) from public;
    grant usage on schema app, kinds to shop_svc;
    grant select, insert, update, delete on app.notes to shop_svc;
    grant select on app.tenants to shop_svc;
    grant execute on function app.shorten(text) to shop_svc;
    alter role shop_svc in database before set search_path = app, public;
"#;

pub const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["app.notes"]
    target = "$TARGET_URL"
    queries = ["queries.sql"]
    [owners.other]
    role = "other_svc"
    tables = ["app.tenants"]
"#;

pub const QUERIES: &str = r"
    -- name: find
    select id, token from notes where token = $1;
    insert into notes (tenant_id, token) values ($1, $2) returning id;
    update notes set mood = 'sad'::kinds.mood where id = $1;
    select shorten(token) from notes;
";

/// What `copy` does not bring, because no table needs it.
pub const READY: &str = "
    alter role shop_svc in database after set search_path = app, public;
    create function app.shorten(text) returns text language sql stable as 'select left($1, 3)';
    revoke execute on function app.shorten(text) from public;
    grant execute on function app.shorten(text) to shop_svc;
";

/// A fixture whose rows are copied, and whose target has all that the statements need.
pub fn fixture(queries: &str) -> Fixture {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    std::fs::write(fixture.folder.path().join("queries.sql"), queries).expect("written");
    fixture.copied();
    execute(&fixture.target, READY);
    fixture
}

/// Adds lines to the owner's entry in the manifest.
pub fn add_to_manifest(fixture: &Fixture, lines: &str) {
    let manifest = MANIFEST.replace("[owners.other]", &format!("{lines}\n[owners.other]"));
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
}

/// Checks that there is exactly one error, with this text.
pub fn has_error(fixture: &Fixture, expected: &str) {
    let errors = texts(&prove(fixture, &[]), "error");
    assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:#?}");
}

/// The proof, and its errors by subject.
pub fn prove(fixture: &Fixture, arguments: &[&str]) -> Value {
    let output = fixture.command(&[&["prove", OWNER, "--format", "json"], arguments].concat()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"))
}

pub fn texts(proof: &Value, weight: &str) -> Vec<String> {
    let findings = proof["findings"].as_array().expect("findings").iter();
    findings.filter(|finding| finding["weight"] == weight).map(|finding| finding["text"].to_string()).collect()
}

#[test]
fn statements_that_work_on_both_sides_are_proven_and_the_target_stays_as_it_is() {
    let fixture = fixture(QUERIES);
    let rights = "select relname || ' ' || coalesce(relacl::text, '') from pg_class
         where relnamespace = 'app'::regnamespace
         union all select nspname || coalesce(nspacl::text, '') from pg_namespace
         order by 1";
    let before = strings(&fixture.target, rights);
    let proof = prove(&fixture, &[]);
    assert_eq!(texts(&proof, "error"), Vec::<String>::new());
    assert_eq!((&proof["statements"], &proof["unchecked"]), (&4.into(), &Value::Array(Vec::new())));
    assert_eq!(strings(&fixture.target, rights), before);
    fixture.done(&["cutover", OWNER]);
}

#[test]
fn what_the_target_lacks_for_a_statement_is_named_before_anybody_waits() {
    let queries = "select id from notes;
         select n.id, t.name from notes n join tenants t on t.id = n.tenant_id;
         select shorten(token) from notes where id = $1;
         select 'ok'::kinds.mood;
         select count(*) from notes where id = :id";
    let fixture = fixture(queries);
    execute(
        &fixture.target,
        "revoke execute on function app.shorten(text) from shop_svc; revoke usage on schema kinds from shop_svc",
    );
    let proof = prove(&fixture, &[]);
    let errors = texts(&proof, "error");
    for expected in [
        "The table app.tenants stays in the source",
        "permission denied for function shorten (42501). It works on the source. Grant shop_svc on the target the right \
         that it has on the source, such as `grant execute on function app.shorten(text) to shop_svc`",
        "permission denied for schema kinds",
    ] {
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:#?}");
    }
    assert_eq!(errors.len(), 3, "{errors:#?}");
    let unchecked = proof["unchecked"].as_array().expect("a list");
    assert!(unchecked.len() == 1 && unchecked[0]["statement"].to_string().contains(":id"), "{unchecked:?}");
    let said = fixture.refused(&["cutover", OWNER], "the proof of the target found 3 errors");
    assert!(said.contains("app.tenants") && said.contains("`accept`"), "{said}");
    // Nothing was begun.
    let steps = "select step from splitctl.journal where step in ('cutover', 'give-up')";
    assert_eq!(strings(&fixture.source, steps), Vec::<String>::new());
}

#[test]
fn a_name_that_means_something_else_on_the_target_is_an_error() {
    let fixture = fixture("select token from notes");
    execute(&fixture.target, "alter role shop_svc in database after reset search_path");
    has_error(&fixture, "The target has the table app.notes, and the search_path of shop_svc does not find it");
    // A table of the same name, and then a function, is found first.
    execute(
        &fixture.target,
        "alter role shop_svc in database after set search_path = public, app;
         create table public.notes (id bigint, tenant_id integer, token text, mood kinds.mood);
         create function public.shorten(text) returns integer language sql as 'select 1';
         grant select on public.notes to shop_svc",
    );
    has_error(&fixture, "it uses app.notes on the source, and another table of that name on the other side, notes");
    std::fs::write(fixture.folder.path().join("queries.sql"), "select shorten(token) from app.notes").expect("written");
    has_error(&fixture, "the function shorten is app.shorten(text) on the source, and public.shorten(text) on the target");
}

#[test]
fn an_error_of_the_proof_can_be_accepted() {
    let fixture = fixture("select name from tenants");
    let said = fixture.refused(&["prove", OWNER], "stays in the source");
    let entry = said.split('"').find(|part| part.starts_with("proof: statement ")).expect("an entry");
    add_to_manifest(&fixture, &format!("accept = [\"{entry}\"]"));
    let said = fixture.done(&["prove", OWNER]);
    assert!(said.contains("warning:") && said.contains("The manifest accepts it"), "{said}");
    fixture.done(&["detach", OWNER]);
    let said = fixture.done(&["cutover", OWNER]);
    assert!(said.contains("the proof of the target warns: ") && said.contains("The manifest accepts it"), "{said}");
}

#[test]
fn the_login_of_the_application_is_tried_on_the_target() {
    let fixture = fixture(QUERIES);
    execute(&fixture.target, "alter role shop_svc password 'of the target'");
    let (_, address) = fixture.target.split_once('@').expect("an address");
    let login = format!("postgres://shop_svc:of%20the%20target@{address}");
    add_to_manifest(&fixture, &format!("login = \"{login}\""));
    let proof = prove(&fixture, &[]);
    assert_eq!((&proof["own_login"], texts(&proof, "error")), (&Value::Bool(true), Vec::new()));
    execute(&fixture.target, "alter role shop_svc nologin");
    has_error(&fixture, "shop_svc cannot log in on the target");
    let proof = prove(&fixture, &[]);
    assert_eq!(proof["own_login"], Value::Bool(false));
    add_to_manifest(&fixture, &format!("login = \"{}\"", fixture.target));
    has_error(&fixture, "and the application's role is shop_svc");
}
