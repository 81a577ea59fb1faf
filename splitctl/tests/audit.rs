//! What the audit finds, and when it passes.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what they like")]

mod program;

use std::process::Stdio;

use dev::postgres::{Cluster, ORDERS_ROLE, TestDatabase, USERS_ROLE, connect, with_role};
use program::{Foreign, Program, Ran, execute, finding, ids, write};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor};

const OUR_CROSSINGS: [&str; 5] = [
    "foreign-key:orders.orders_user_id_fkey",
    "view:customers",
    "view:open_orders",
    "trigger:orders.orders_user_active",
    "trigger:users.users_no_open_orders",
];

#[test]
fn the_shared_schema_has_five_crossings_and_its_manifest_explains_each() {
    let database = TestDatabase::create();
    let (code, document) = Program::ours(database.url()).audit(&[]);
    assert_eq!(ids(&document, "tolerated"), OUR_CROSSINGS, "{document:#}");
    assert_eq!((code, &document["errors"]), (0, &json!(0)), "{document:#}");
    assert_eq!(finding(&document, "view:customers")["to"], "users");
    let notes = document["notes"].to_string();
    assert!(!notes.contains("could not be checked"), "every statement is understood: {notes}");
}

#[test]
fn a_closed_pipe_ends_the_program_quietly_with_the_audits_exit_code() {
    let database = TestDatabase::create();
    let program = Program::ours(database.url());
    for format in ["text", "json"] {
        let mut command = program.command(&["audit", "--format", format]);
        let mut audit = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        drop(audit.stdout.take());
        let output = audit.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(0), "".into()));
    }
}

#[test]
fn a_borrowing_that_nothing_needs_any_more_is_an_error() {
    let database = TestDatabase::create();
    execute(
        database.url(),
        "alter table orders drop constraint orders_user_id_fkey;
         create or replace view customers as select id, name, status, version from customers_replica;",
    );
    let (code, document) = Program::ours(database.url()).audit(&[]);
    let expected = ["unused-borrowing:orders:customers", "unused-borrowing:orders:orders.orders_user_id_fkey"];
    assert_eq!((code, ids(&document, "error")), (1, expected.to_vec()), "{document:#}");
    let told = Program::ours(database.url()).run(&["audit"]).out;
    assert!(told.contains("Delete it from the manifest"), "{told}");
}

#[test]
fn every_kind_of_coupling_is_found_in_a_schema_that_is_not_ours() {
    let foreign = Foreign::create();
    execute(foreign.url(), "create table stray (id integer)");
    let manifest = foreign.manifest("").replace("\"client_notes\"", "\"client_notes\", \"gone\"");
    let (code, document) = Program::new(foreign.url(), &manifest).audit(&[]);
    let errors = [
        r#"foreign-key:"Back office"."Odd invoices"."Odd fk""#,
        "view:client_totals",
        "published-view:billing:client_names",
        r#"trigger:"Back office".ledger."Checks clients""#,
        "function:settle(integer)",
        "function:total(integer)",
        r#"default:"Back office".ledger.number"#,
        "grant:billing:clients",
        "grant:billing:clients_id_seq",
        "unlisted-table:stray",
        "missing:gone",
    ];
    assert_eq!((code, ids(&document, "error")), (1, errors.to_vec()), "{document:#}");
    assert_eq!(ids(&document, "warning"), ["shared-type:level"]);
    assert_eq!(finding(&document, "grant:billing:clients")["columns"], json!(["id", "name"]));
    let trigger = finding(&document, errors[3]);
    assert!(trigger["detail"].as_str().is_some_and(|detail| detail.ends_with("uses clients")), "{trigger}");
}

#[test]
fn a_borrowing_tolerates_what_it_names_until_its_day() {
    let foreign = Foreign::create();
    let audit = |columns: &str, rights: &str, until: &str| {
        let borrowing = format!(
            "[[borrowings]]\nwho = 'billing'\nwhat = 'clients'\ncolumns = {columns}\nrights = {rights}\n\
             why = 'a test'\nuntil = '{until}'\n"
        );
        let (_, document) = Program::new(foreign.url(), &foreign.manifest(&borrowing)).audit(&[]);
        let unused = ids(&document, "error").iter().any(|id| id.starts_with("unused"));
        assert!(!unused, "one that does not suffice is not one that is not needed");
        finding(&document, "grant:billing:clients")["severity"].clone()
    };
    assert_eq!(audit("['id', 'name']", "['select']", "9999-12-31"), "tolerated");
    assert_eq!(audit("[]", "[]", "9999-12-31"), "tolerated");
    assert_eq!(audit("['id']", "['select']", "9999-12-31"), "error");
    assert_eq!(audit("['id', 'name']", "['update']", "9999-12-31"), "error");
    assert_eq!(audit("['id', 'name']", "['select']", "2020-12-31"), "error");
}

#[test]
fn a_role_that_no_grant_holds_back_is_an_error() {
    let foreign = Foreign::create();
    let Foreign { crm, billing, .. } = &foreign;
    let program = Program::new(foreign.url(), &foreign.manifest(""));
    let id = format!("role:role {billing}");
    execute(foreign.url(), &format!(r#"alter table clients owner to "{crm}"; grant "{crm}" to "{billing}""#));
    assert_eq!(finding(&program.audit(&[]).1, &id)["to"], "crm");
    execute(foreign.url(), &format!(r#"revoke "{crm}" from "{billing}"; grant pg_read_all_data to "{billing}""#));
    assert_eq!(finding(&program.audit(&[]).1, &id)["severity"], "error");
    execute(foreign.url(), &format!(r#"revoke pg_read_all_data from "{billing}"; grant select on clients to public"#));
    let (_, document) = program.audit(&[]);
    assert!(!ids(&document, "error").contains(&id.as_str()));
    let grant = finding(&document, "grant:billing:clients")["detail"].to_string();
    assert!(grant.contains("PUBLIC"), "{grant}");
}

#[test]
fn statements_are_resolved_to_relations_columns_and_rights_and_none_is_run() {
    let database = TestDatabase::create();
    let program = Program::ours(database.url());
    let folder = program.folder.path().join("statements");
    for (name, query) in [
        ("query-1.json", "select u.name from \"users\" u where u.id = $1 -- the end"),
        (
            "query-2.json",
            "with gone as (delete from public.user_events where user_id = $1 returning version) select 1 from gone",
        ),
        (
            "query-3.json",
            "insert into users_cursors (log, cursor) values ($1, $2) on conflict (log) do update set cursor = $2",
        ),
        ("query-4.json", "select count(*) from orders"),
        ("query-5.json", "select 1; drop table users"),
        ("query-6.json", "select nothing from nowhere"),
        ("query-7.json", "select u from users u where id is null"),
    ] {
        write(&folder, name, &json!({ "query": query }).to_string());
    }
    let (code, document) = program.audit(&["--statements", "orders=statements"]);
    assert_eq!(code, 1);
    let events = finding(&document, "statement:orders:user_events");
    assert_eq!((&events["columns"], &events["rights"]), (&json!(["user_id", "version"]), &json!(["delete"])));
    let cursors = finding(&document, "statement:orders:users_cursors");
    assert_eq!(cursors["rights"], json!(["insert", "update"]));
    let users = finding(&document, "statement:orders:users");
    assert_eq!(users["rights"], json!(["select"]));
    assert!(users["columns"].as_array().is_some_and(|columns| columns.len() == 7), "a whole row is all columns: {users}");
    let notes = document["notes"].to_string();
    assert!(notes.contains("2 of 7 statements of orders could not be checked"), "{notes}");
    let (_, after) = program.audit(&[]);
    assert_eq!(ids(&after, "error"), Vec::<&str>::new(), "nothing was run");
}

#[tokio::test]
async fn a_transaction_that_writes_tables_of_two_owners_is_seen() {
    let foreign = Foreign::create();
    let program = Program::new(foreign.url(), &foreign.manifest(""));
    let mut command = program.command(&["audit", "--format", "json", "--watch", "3s"]);
    let run = tokio::task::spawn_blocking(move || Ran::of(command.output().expect("the program starts")));
    let mut writer = connect(foreign.url()).await.expect("the server answers");
    let transactions = r#"
        begin;
        insert into clients (name) values ('secret: name');
        insert into "Back office".ledger (day, number) values ('2026-05-01', 1);
        commit;
        insert into clients (name) values ('another');"#;
    // For as long as it watches, whenever it begins to.
    while !run.is_finished() {
        writer.execute(AssertSqlSafe(transactions)).await.expect("written");
    }
    let ran = run.await.expect("it ran");
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
    let transaction = finding(&document, r#"transaction:"Back office".ledger + clients"#);
    assert_eq!((&transaction["from"], &transaction["to"]), (&json!("billing"), &json!("crm")));
    assert!(!ran.out.contains("secret") && ran.err.contains("watching"), "{}", ran.err);
    let slots: i64 = sqlx::query_scalar("select count(*) from pg_replication_slots where database = current_database()")
        .fetch_one(&mut writer)
        .await
        .expect("asked");
    assert_eq!(slots, 0, "the slot is gone");
}

#[tokio::test]
async fn what_a_role_has_run_is_found_in_the_servers_statistics() {
    let cluster = Cluster::temporary_with(&["shared_preload_libraries=pg_stat_statements", "wal_level=replica"]);
    let cluster = match cluster {
        Ok(cluster) => cluster,
        // A server without its contrib modules has nothing to find it in.
        Err(error) if error.to_string().contains("pg_stat_statements") => return,
        Err(error) => panic!("{error}"),
    };
    let database = TestDatabase::on(&cluster);
    execute(
        database.url(),
        &format!(
            "create schema statistics; create extension pg_stat_statements schema statistics;
             grant select on users to {ORDERS_ROLE}; create view elsewhere as select id from orders;"
        ),
    );
    for (role, statement) in [
        (ORDERS_ROLE, "select name from users where email = 'secret@example.org' and version = 1"),
        (USERS_ROLE, "select name from users where email = 'secret@example.org' and version = 1"),
    ] {
        let mut connection = connect(&with_role(database.url(), role)).await.expect("the role logs in");
        connection.execute(statement).await.expect("it may");
        connection.close().await.expect("it ends");
    }
    let program = Program::ours(database.url());
    let (_, document) = program.audit(&[]);
    let statement = finding(&document, "statement:orders:users");
    assert_eq!(statement["columns"], json!(["email", "name", "version"]));
    assert!(!document.to_string().contains("secret@"), "{document:#}");
    assert_eq!(ids(&document, "error"), ["grant:orders:users", "statement:orders:users"]);

    let refused = program.run(&["audit", "--watch", "1s"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("set wal_level = logical"), "{}", refused.err);
}

#[test]
fn the_map_is_the_same_each_time_and_takes_names_for_text() {
    let foreign = Foreign::create();
    execute(foreign.url(), r#"alter table client_notes rename to "<b>&notes""#);
    let manifest = foreign.manifest("").replace("\"client_notes\"", r#"'"<b>&notes"'"#);
    let program = Program::new(foreign.url(), &manifest);
    let draw = |name: &str| {
        assert_eq!(program.audit(&["--map", name]).0, 1);
        std::fs::read_to_string(program.folder.path().join(name)).expect("drawn")
    };
    let map = draw("one.svg");
    assert_eq!(map, draw("two.svg"));
    assert!(map.contains("&lt;b&gt;&amp;notes") && !map.contains("<b>"), "{map}");
    assert!(map.starts_with("<svg") && map.ends_with("</svg>\n") && map.contains("shared-type: level"), "{map}");
}
