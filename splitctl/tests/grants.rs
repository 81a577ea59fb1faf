//! The rights that a manifest implies, and how `--apply` grants them.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what they like")]

mod program;

use dev::postgres::{TestDatabase, connect};
use program::{Foreign, Program, execute};

async fn ask(url: &str, question: &str) -> bool {
    let mut connection = connect(url).await.expect("the server answers");
    sqlx::query_scalar(sqlx::AssertSqlSafe(question.to_owned())).fetch_one(&mut connection).await.expect(question)
}

#[test]
fn the_migrations_give_what_the_manifest_implies() {
    let database = TestDatabase::create();
    let ran = Program::ours(database.url()).run(&["grants"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.ends_with("-- no drift\n"), "{}", ran.out);
}

#[test]
fn drift_is_shown_with_the_statements_that_repair_it_and_repaired_in_one_transaction() {
    let database = TestDatabase::create();
    let program = Program::ours(database.url());
    execute(
        database.url(),
        "grant delete on orders to orders_svc;
         grant select (email) on users to orders_svc;
         grant update on sequence user_events_position_seq to users_svc;
         revoke insert on user_events from users_svc;",
    );
    let ran = program.run(&["grants"]);
    assert_eq!(ran.code, 1);
    let lines = [
        r#"revoke delete on table "public"."orders" from "orders_svc"; -- extra: the manifest does not give it"#,
        r#"revoke select ("email") on table "public"."users" from "orders_svc"; -- extra"#,
        r#"revoke update on sequence "public"."user_events_position_seq" from "users_svc"; -- extra"#,
        r#"grant insert, select on table "public"."user_events" to "users_svc"; -- missing"#,
        "-- drift: 3 extra, 1 missing, 0 absent",
    ];
    for line in lines {
        assert!(ran.out.contains(line), "{line} in {}", ran.out);
    }
    // What it prints is a script: psql would take it as it is.
    execute(database.url(), &ran.out);
    assert_eq!(program.run(&["grants"]).code, 0);
    execute(database.url(), "grant delete on orders to orders_svc");
    let ran = program.run(&["grants", "--apply"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("-- applied: 1 revoked, 0 granted, 0 absent"), "{}", ran.out);
    assert_eq!(program.run(&["grants"]).code, 0);
}

#[tokio::test]
async fn sequences_borrowings_and_missing_roles_are_given_and_a_role_that_exists_keeps_its_password() {
    let foreign = Foreign::create();
    let Foreign { crm, billing, .. } = &foreign;
    execute(
        foreign.url(),
        &format!(
            r#"revoke all on all tables in schema public from "{billing}", "{crm}";
               drop owned by "{billing}";
               drop role "{billing}""#
        ),
    );
    let borrowing = "[[borrowings]]\nwho = 'billing'\nwhat = 'clients'\ncolumns = ['id']\nrights = ['select']\n\
                     why = 'a test'\nuntil = '9999-12-31'\n";
    let program = Program::new(foreign.url(), &foreign.manifest(borrowing));
    assert_eq!(program.run(&["grants"]).code, 1);
    let password = format!("select rolcanlogin and rolpassword is not null from pg_authid where rolname = '{crm}'");
    // At first roles and rights are missing; then there is one too many, and who loses it must keep what is on the column.
    for before in ["select 1".to_owned(), format!(r#"grant select on clients to "{billing}""#)] {
        execute(foreign.url(), &before);
        let ran = program.run(&["grants", "--apply"]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        for (holds, question) in [
            (true, password.clone()),
            (true, format!("select not rolcanlogin from pg_roles where rolname = '{billing}'")),
            (true, format!("select has_column_privilege('{billing}', 'clients', 'id', 'select')")),
            (false, format!("select has_column_privilege('{billing}', 'clients', 'name', 'select')")),
            (true, format!("select has_sequence_privilege('{crm}', 'clients_id_seq', 'usage')")),
            (false, format!("select has_sequence_privilege('{billing}', 'clients_id_seq', 'usage')")),
            (true, format!(r#"select has_schema_privilege('{billing}', 'Back office', 'usage')"#)),
            (true, format!(r#"select has_table_privilege('{billing}', '"Back office"."Odd invoices"', 'delete')"#)),
        ] {
            assert_eq!(ask(foreign.url(), &question).await, holds, "{question}");
        }
    }
}

#[test]
fn on_its_own_database_an_owner_gets_what_is_its_own() {
    let source = Foreign::create();
    let target = TestDatabase::empty();
    execute(target.url(), "create table clients (id serial, name text)");
    let manifest = source.manifest("").replace("[owners.billing]", "target = \"$TARGET\"\n[owners.billing]");
    let program = Program::new(source.url(), &manifest);
    let run = |arguments: &[&str]| {
        let output = program.command(arguments).env("TARGET", target.url()).output().expect("the program starts");
        program::Ran::of(output)
    };
    let ran = run(&["grants", "--on", "crm", "--apply"]);
    assert_eq!(ran.code, 1, "one table is not there yet: {}{}", ran.out, ran.err);
    assert!(ran.out.contains("-- client_notes of crm does not exist"), "{}", ran.out);
    assert!(!ran.out.contains("invoices") && !ran.out.contains(&source.billing), "{}", ran.out);
    execute(target.url(), "create table client_notes (id integer)");
    let ran = run(&["grants", "--on", "crm", "--apply"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    execute(target.url(), &format!(r#"drop owned by "{}""#, source.crm));
    let ran = run(&["grants", "--on", "billing"]);
    assert!(ran.code == 2 && ran.err.contains("billing has no `target`"), "{}", ran.err);
}
