//! Tables that no owner has: those of migration tools.

use super::fixture::{Fixture, OWNER, execute, strings};

const SCHEMA: &str = r#"
    create table products (id integer primary key);
    create table carts (id integer primary key);
    create schema tools;
    create table tools.steps (
        id bigint generated always as identity primary key,
        step text not null,
        long text generated always as (step || '!') stored
    );
    comment on table tools.steps is 'Which steps have run';
    create table schema_migrations (version text primary key);
    insert into tools.steps (step) values ('first'), (E'second\tone');
    insert into schema_migrations values ('1'), ('2');
    insert into carts select generate_series(1, 10);
    grant all on carts to shop_svc;
    grant all on products to other_svc;
    grant usage on schema tools to shop_svc;
    grant select, insert on tools.steps to shop_svc;
"#;

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    unowned = ["tools.steps", "schema_migrations"]
    [owners.shop]
    role = "shop_svc"
    tables = ["carts"]
    target = "$TARGET_URL"
    [owners.other]
    role = "other_svc"
    tables = ["products"]
"#;

const STEPS: &str = "select row(s.*)::text from tools.steps s order by id";
const VERSIONS: &str = "select version from schema_migrations order by 1";

#[test]
fn tables_of_migration_tools_are_copied_once_and_stay_in_the_source() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    // This target has run migrations of its own.
    execute(
        &fixture.target,
        "create table schema_migrations (version text primary key); insert into schema_migrations values ('9')",
    );
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("tools.steps: no owner has it, so it is copied once"), "{said}");
    assert!(said.contains("schema_migrations: no owner has it; the target has one of its own"), "{said}");
    fixture.copied();
    assert_eq!(strings(&fixture.target, STEPS), strings(&fixture.source, STEPS));
    assert_eq!(strings(&fixture.target, VERSIONS), ["9"]);
    let comment = "select obj_description('tools.steps'::regclass)";
    assert_eq!(strings(&fixture.target, comment), ["Which steps have run"]);
    // A migration runs in the source between the copy and the switch.
    execute(&fixture.source, "insert into tools.steps (step) values ('third')");
    fixture.refused(&["cutover", OWNER], "tools.steps: the rows on the target are not those of the source");
    fixture.done(&["copy", OWNER]);
    fixture.done(&["cutover", OWNER]);
    // Each side goes on with its own.
    execute(&fixture.target, "insert into tools.steps (step) values ('of the target')");
    execute(&fixture.source, "insert into tools.steps (step) values ('of the source')");
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["complete", OWNER]);
    assert_eq!(strings(&fixture.source, STEPS).len(), 4);
    assert_eq!(strings(&fixture.source, VERSIONS), ["1", "2"]);
    assert_eq!(strings(&fixture.target, STEPS).len(), 4);
    fixture.assert_clean();
}

#[test]
fn an_abort_drops_the_copies_of_tables_that_no_owner_has_and_nothing_else() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    execute(&fixture.target, "create table schema_migrations (version text primary key)");
    fixture.copied();
    fixture.done(&["abort", OWNER]);
    let left = "select relname::text from pg_class where relname in ('steps', 'schema_migrations', 'carts')";
    assert_eq!(strings(&fixture.target, left), ["schema_migrations"]);
    assert_eq!(strings(&fixture.source, STEPS).len(), 2);
}
