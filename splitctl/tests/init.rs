//! What a draft contains, and that the other commands accept it.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what they like")]

mod program;

use dev::postgres::TestDatabase;
use program::{Foreign, Program, execute, ids};

fn init(program: &Program) -> String {
    let ran = program.run(&["init"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    std::fs::read_to_string(program.folder.path().join("split.toml")).expect("a draft")
}

#[test]
fn a_draft_of_the_shared_schema_passes_the_audit_and_shows_no_drift() {
    let database = TestDatabase::create();
    let program = Program::new(database.url(), "");
    let draft = init(&program);
    assert!(draft.contains("[owners.users]\nrole = \"users_svc\""), "{draft}");
    let (code, document) = program.audit(&[]);
    assert_eq!((code, ids(&document, "tolerated").len()), (0, 5), "{document:#}");
    let grants = program.run(&["grants"]);
    assert_eq!(grants.code, 0, "{}", grants.out);
}

#[test]
fn tables_are_given_to_owners_by_grants_then_foreign_keys_then_names() {
    let foreign = Foreign::create();
    execute(foreign.url(), "create table client_tags (tag text); create table stray (id integer)");
    let program = Program::new(foreign.url(), "");
    let draft = init(&program);
    for line in [
        "source = \"$DATABASE_URL\"",
        "    \"clients\",\n",
        "    \"client_notes\", # by its foreign keys\n",
        "    \"client_tags\", # by its name\n",
        "    \"\\\"Back office\\\".\\\"Odd invoices\\\"\",\n",
        "\"\\\"Back office\\\".ledger\" = [\"select\", \"insert\"]",
        "[owners.unassigned]\nrole = \"unassigned\"\ntables = [\n    \"stray\",\n]",
        "columns = [\"id\", \"name\"]\nrights = [\"select\"]",
        "why = \"found by init; say why, or remove it\"",
        "views = [\"client_names\"]",
    ] {
        assert!(draft.contains(line), "{line} in {draft}");
    }
    assert!(!draft.contains("postgres://"), "a manifest holds no passwords");
    let (code, document) = program.audit(&[]);
    assert_eq!((code, ids(&document, "error").len()), (0, 0), "{document:#}");
}

/// Tables of migration tools belong to a database: by their names, by a name that says migrations, and by their columns.
#[test]
fn tables_of_migration_tools_are_drafted_as_nobodys() {
    let foreign = Foreign::create();
    let known = [
        "seaql_migrations",
        "refinery_schema_history",
        "databasechangelog",
        "databasechangeloglock",
        "_prisma_migrations",
        "django_migrations",
        "\"__EFMigrationsHistory\"",
        "knex_migrations",
        "knex_migrations_lock",
        "alembic_version",
        "goose_db_version",
        "schema_migrations",
        "ar_internal_metadata",
        "atlas_schema_revisions",
        "__drizzle_migrations",
        "flyway_schema_history",
        "_sqlx_migrations",
        "__diesel_schema_migrations",
        "our_migrations",
        "\"SchemaMigrations\"",
    ];
    let mut statements: Vec<String> = known.map(|name| format!("create table {name} (id serial primary key)")).into();
    statements.extend([
        "create table changes_run (version bigint primary key, dirty boolean not null)".to_owned(),
        "create table \"Odd history\" (\"MigrationId\" text primary key, \"ProductVersion\" text not null)".to_owned(),
        // A foreign key makes it a table of the application.
        "create table bird_migrations (id int primary key, client_id int references clients)".to_owned(),
    ]);
    execute(foreign.url(), &statements.join(";"));
    execute(foreign.url(), &format!("grant all on all tables in schema public to {}", foreign.crm));
    let program = Program::new(foreign.url(), "");
    let draft = init(&program);
    let unowned = draft.lines().find(|line| line.starts_with("unowned = ")).unwrap_or_else(|| panic!("{draft}"));
    for name in known.iter().copied().chain(["changes_run", "\"Odd history\""]) {
        let shown = name.replace('"', "\\\"");
        assert!(unowned.contains(&format!("\"{shown}\"")), "{shown} in {unowned}");
    }
    assert!(draft.contains("    \"bird_migrations\""), "{draft}");
    let (code, document) = program.audit(&[]);
    assert_eq!((code, ids(&document, "error").len()), (0, 0), "{document:#}");
    // No list is whole: a manifest may say more, and may say otherwise.
    execute(foreign.url(), "create table stray (id integer)");
    let path = program.folder.path().join("split.toml");
    let manifest = draft.replace("unowned = [", "unowned = [\"stray\", ");
    std::fs::write(&path, &manifest).expect("written");
    assert_eq!(program.audit(&[]).0, 0);
    let owned =
        manifest.replace("\"our_migrations\", ", "").replace("    \"clients\",", "    \"clients\", \"our_migrations\",");
    std::fs::write(&path, owned).expect("written");
    let (code, document) = program.audit(&[]);
    assert_eq!((code, ids(&document, "error").len()), (0, 0), "{document:#}");
    std::fs::write(&path, manifest.replace("\"stray\"", "\"lost\"")).expect("written");
    let (_, document) = program.audit(&[]);
    assert_eq!(ids(&document, "error"), ["unlisted-table:stray", "missing:lost"]);
}

#[test]
fn a_manifest_that_exists_is_not_overwritten() {
    let database = TestDatabase::create();
    let program = Program::new(database.url(), "mine");
    let ran = program.run(&["init", "--database", database.url()]);
    assert!(ran.code == 2 && ran.err.contains("split.toml exists"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(program.folder.path().join("split.toml")).expect("read"), "mine");
    let ran = program.run(&["init", "--database", database.url(), "--output", "other.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let draft = std::fs::read_to_string(program.folder.path().join("other.toml")).expect("read");
    assert!(draft.contains("source = \"$DATABASE_URL\"") && !draft.contains("postgres://"), "{draft}");
}
