//! What `replace`, `restore` and `compare` do with the SQL files of any manifest.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what they like")]

mod program;

use dev::postgres::connect;
use program::{Foreign, Program, Ran, execute, finding, write};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

const VIEW: &str = r#""Back office".customers"#;

/// billing reads the clients through its own view, and keeps a copy of them.
const SCHEMA: &str = r#"
    create table "Back office".copies (id integer primary key, name text);
    create table "Back office".conditions (missing text);
    create view "Back office".customers as select id, name from public.clients"#;

const FILES: [(&str, &str); 5] = [
    ("require.sql", r#"select missing from "Back office".conditions"#),
    (
        "compare.sql",
        r#"select coalesce(c.id, r.id)::text as key, case when c is distinct from r then 'different' end as difference
           from (select id, name from clients) c
           full join (select id, name from "Back office".copies) r using (id)
           where $1::text[] is null or coalesce(c.id, r.id) = any ($1::text[]::integer[])"#,
    ),
    (
        "copy.sql",
        r#"insert into "Back office".copies select id, name from clients where $1::xid8 is not null
           on conflict (id) do update set name = excluded.name"#,
    ),
    ("replace.sql", r#"create or replace view "Back office".customers as select id, name from "Back office".copies"#),
    ("restore.sql", r#"create or replace view "Back office".customers as select id, name from clients"#),
];

/// A schema that is not this project's, its manifest, and the files that the manifest names.
fn prepare() -> (Foreign, Program) {
    let foreign = Foreign::create();
    execute(foreign.url(), SCHEMA);
    let tables = r#"'"Back office".ledger', '"Back office".copies', '"Back office".conditions']"#;
    let manifest = foreign.manifest(
        r#"
views = ['"Back office".customers']
[[borrowings]]
who = "billing"
what = '"Back office".customers'
why = "a test"
until = "9999-12-31"
require = "sql/require.sql"
compare = "sql/compare.sql"
copy = "sql/copy.sql"
replace = "sql/replace.sql"
restore = "sql/restore.sql"
"#,
    );
    let program = Program::new(foreign.url(), &manifest.replace(r#"'"Back office".ledger']"#, tables));
    for (name, text) in FILES {
        write(&program.folder.path().join("sql"), name, text);
    }
    (foreign, program)
}

fn run(program: &Program, arguments: &[&str], code: i32) -> Ran {
    let ran = program.run(arguments);
    assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
    ran
}

fn document(program: &Program, arguments: &[&str], code: i32) -> Value {
    serde_json::from_str(&run(program, &[arguments, &["--format", "json"]].concat(), code).out).expect("JSON")
}

fn id_of_view() -> String {
    format!("view:{VIEW}")
}

#[test]
fn a_borrowing_is_replaced_and_restored_by_the_manifests_files_and_nothing_is_done_twice() {
    let (foreign, program) = prepare();
    execute(foreign.url(), "insert into clients (name) values ('Ada')");
    execute(foreign.url(), r#"insert into "Back office".copies values (1, 'Ada')"#);
    assert_eq!(finding(&program.audit(&[]).1, &id_of_view())["severity"], "tolerated");
    assert_eq!(document(&program, &["compare"], 0)["compared"][0]["rows"], 1);
    let state =
        |replaced: bool, changed: bool| json!({ "what": VIEW, "who": "billing", "replaced": replaced, "changed": changed });
    assert_eq!(document(&program, &["replace", VIEW], 0), state(true, true));
    assert_eq!(document(&program, &["replace", VIEW], 0), state(true, false));
    let unused = format!("unused-borrowing:billing:{VIEW}");
    assert_eq!(finding(&program.audit(&[]).1, &unused)["severity"], "error", "the coupling has ended");
    assert_eq!(document(&program, &["restore", VIEW], 0), state(false, true));
    assert_eq!(document(&program, &["restore", VIEW], 0), state(false, false));
    assert_eq!(finding(&program.audit(&[]).1, &id_of_view())["severity"], "tolerated");
}

#[test]
fn what_does_not_hold_differs_or_ends_no_coupling_is_refused_and_changes_nothing() {
    let (foreign, program) = prepare();
    let refused = |arguments: &[&str], code: i32, said: &str| {
        let ran = run(&program, arguments, code);
        assert!(ran.err.contains(said), "{said} in {}", ran.err);
        assert_eq!(finding(&program.audit(&[]).1, &id_of_view())["severity"], "tolerated");
    };
    let replace = ["replace", VIEW, "--patience", "0s"];
    execute(foreign.url(), r#"insert into "Back office".conditions values ('copies: no job fills it')"#);
    refused(&replace, 1, "nothing was changed.\ncopies: no job fills it");
    execute(foreign.url(), r#"delete from "Back office".conditions; insert into clients (name) values ('Ada: secret')"#);
    refused(&replace, 1, "1 of 1 rows still differ");
    let ran = run(&program, &["compare", "--patience", "0s"], 1);
    assert!(ran.out.contains("1 is different") && !ran.out.contains("secret"), "{}", ran.out);
    execute(foreign.url(), r#"insert into "Back office".copies select id, name from clients"#);

    let folder = program.folder.path().join("sql");
    write(&folder, "replace.sql", FILES[4].1);
    refused(&replace, 1, "leaves a coupling: the view");
    write(&folder, "replace.sql", "create or replace view nonsense");
    refused(&replace, 2, "syntax error");
    write(&folder, "require.sql", r#"insert into "Back office".conditions values ('x') returning missing"#);
    refused(&replace, 2, "read-only transaction");
    refused(&["replace", "clients"], 2, "names no SQL files for a borrowing of clients");
    std::fs::remove_file(folder.join("replace.sql")).expect("removed");
    refused(&replace, 2, "replace.sql cannot be read");
    execute(foreign.url(), r#"drop view "Back office".customers"#);
    for command in ["replace", "restore"] {
        let ran = run(&program, &[command, VIEW], 1);
        assert!(ran.err.contains("does not exist in this database"), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_reader_that_keeps_the_lock_away_is_named_and_nothing_is_changed() {
    let (foreign, program) = prepare();
    let mut reader = connect(foreign.url()).await.expect("the server answers");
    let reading = format!("set application_name = 'a long report'; begin; select from {VIEW}");
    reader.execute(AssertSqlSafe(reading)).await.expect("read");
    let ran = run(&program, &["replace", VIEW, "--lock-attempts", "2"], 1);
    assert!(ran.err.contains("a long report") && ran.err.contains("customers"), "{}", ran.err);
    reader.execute("commit").await.expect("it ends");
    run(&program, &["replace", VIEW], 0);
}
