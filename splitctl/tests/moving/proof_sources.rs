//! Where the proof knows the application's statements from.

use super::fixture::{Fixture, OWNER, cluster_with, execute, strings};
use super::proof::{MANIFEST, READY, SCHEMA, add_to_manifest, fixture, prove, texts};

/// A line of a log as csv.
pub fn logged(role: &str, statement: &str) -> String {
    format!("2026-01-01 00:00:00 UTC,{role},before,7,,s,1,SELECT,t,3/0,0,LOG,00000,\"{statement}\",,,,,,,,,app\n")
}

#[test]
fn statements_of_a_log_and_of_files_are_checked_once_and_those_of_other_roles_are_not() {
    let fixture = fixture("");
    let folder = fixture.folder.path().join("sql");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join("one.sql"), "select id from notes where token = 'a'; select 1;").expect("written");
    std::fs::write(folder.join("readme.txt"), "select nonsense").expect("written");
    let log = logged("shop_svc", "statement: select id from notes where token = 'b'")
        + &logged("shop_svc", "duration: 1.5 ms  execute <unnamed>: select name from tenants where id = $1")
        + &logged("other_svc", "statement: select id from tenants");
    std::fs::write(folder.join("server.csv"), log).expect("written");
    let offline = fixture.folder.path().join(".sqlx");
    std::fs::create_dir(&offline).expect("made");
    let query = serde_json::json!({ "query": "select mood from notes where id = $1" }).to_string();
    std::fs::write(offline.join("query-1a2b3c4d5e.json"), query).expect("written");
    let manifest = MANIFEST.replace("[\"queries.sql\"]", "[\"sql\"]\n    statements = \".sqlx\"");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    let proof = prove(&fixture, &[]);
    let errors = texts(&proof, "error");
    assert!(errors.len() == 1 && errors[0].contains("server.csv") && errors[0].contains("app.tenants stays"), "{errors:#?}");
    assert_eq!((&proof["statements"], proof["unchecked"].as_array().map(Vec::len)), (&4.into(), Some(0)));
    execute(&fixture.target, "set session_replication_role = replica; alter table app.notes rename column mood to humour");
    let errors = texts(&prove(&fixture, &[]), "error");
    assert!(errors.iter().any(|error| error.contains("query-1a2b3c4d…") && error.contains("mood")), "{errors:#?}");
}

#[test]
fn what_the_role_has_run_is_checked_and_what_it_runs_for_another_owner_is_not() {
    let Ok(cluster) = cluster_with(&["shared_preload_libraries=pg_stat_statements"]) else {
        eprintln!("skipped: this server has no pg_stat_statements");
        return;
    };
    let fixture = Fixture::new(vec![cluster], &format!("{SCHEMA} create extension pg_stat_statements;"), MANIFEST);
    std::fs::write(fixture.folder.path().join("queries.sql"), "").expect("written");
    fixture.copied();
    execute(&fixture.target, READY);
    for statement in ["select name from app.tenants where id = 7", "select id from app.notes where token = 'a'"] {
        execute(&fixture.source, &format!("set role shop_svc; {statement}"));
    }
    let errors = texts(&prove(&fixture, &[]), "error");
    assert!(errors.len() == 1 && errors[0].contains("pg_stat_statements"), "{errors:#?}");
    assert!(
        !strings(&fixture.source, "select 1::text from pg_stat_statements where query ~ 'explain'").contains(&"1".into())
    );
    // The same role works for the other owner too: then it is that owner's statement.
    add_to_manifest(&fixture, "");
    let path = fixture.folder.path().join("split.toml");
    let manifest = std::fs::read_to_string(&path).expect("read").replace("other_svc", "shop_svc");
    std::fs::write(path, manifest).expect("written");
    let proof = prove(&fixture, &[]);
    assert_eq!(texts(&proof, "error"), Vec::<String>::new());
    assert!(texts(&proof, "note").iter().any(|note| note.contains("1 statements of the role use only tables that stay")));
}

#[test]
fn the_first_way_back_is_proven_too() {
    let fixture = fixture("select id from notes");
    fixture.done(&["cutover", OWNER]);
    // A later release of the application brings a function to the side where it works.
    execute(
        &fixture.target,
        "create function app.newer() returns integer language sql as 'select 1';
         grant execute on function app.newer() to shop_svc",
    );
    let queries = fixture.folder.path().join("queries.sql");
    std::fs::write(&queries, "select newer() from notes").expect("written");
    fixture.refused(&["rollback", OWNER], "The source has no function app.newer(): create it there");
    std::fs::write(&queries, "select id from notes").expect("written");
    fixture.done(&["rollback", OWNER]);
}

#[test]
fn a_right_that_is_gone_after_the_switch_is_named_and_so_is_a_setting() {
    let fixture = fixture("select token from notes where mood = current_setting('app.mood')::kinds.mood");
    for database in ["before", "after"] {
        execute(&fixture.source, &format!("alter role shop_svc in database {database} set app.mood = 'ok'"));
    }
    fixture.done(&["cutover", OWNER]);
    assert_eq!(texts(&prove(&fixture, &["--on", "target"]), "error"), Vec::<String>::new());
    execute(
        &fixture.target,
        "revoke select on app.notes from shop_svc;
         grant select (id, tenant_id, mood) on app.notes to shop_svc",
    );
    let errors = texts(&prove(&fixture, &["--on", "target"]), "error");
    assert!(errors.iter().any(|error| error.contains("permission denied for table notes (42501). It works on the source")));
    assert!(errors.iter().any(|error| error.contains("select on app.notes")), "{errors:#?}");
    execute(&fixture.target, "grant select on app.notes to shop_svc; alter role shop_svc in database after reset app.mood");
    let proof = prove(&fixture, &["--on", "target"]);
    let warnings = texts(&proof, "warning");
    assert!(warnings.iter().any(|warning| warning.contains("app.mood: ")), "{warnings:#?}");
}
