//! What only statements of the application use: the plan names it, and the manifest brings it.

use super::fixture::{Fixture, OWNER, execute, strings};
use super::proof_sources::logged;

fn manifest(bring: &[&str]) -> String {
    format!(
        r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["notes"]
        target = "$TARGET_URL"
        queries = ["queries.sql", "server.csv"]
        bring = {bring:?}
        [owners.other]
        role = "shop_svc"
        tables = ["members"]
        "#
    )
}

const SCHEMA: &str = "
    create extension pg_trgm;
    create sequence hidden;
    create table notes (id integer primary key, said text, at bigint default nextval('hid' || 'den'));
    create table members (id integer primary key, said text);
    create sequence numbers;
    create function clean(text) returns text language sql as 'select lower($1)';
    create function slug(text) returns text language sql as 'select replace(clean($1), '' '', ''-'')';
    create aggregate longest(text) (sfunc = text_larger, stype = text);
    create function lonely() returns integer language sql as 'select 1';
    create function of_members() returns bigint language sql as 'select count(*) from members';
    insert into notes values (1, 'one');
    select nextval('numbers') from generate_series(1, 41);
    grant select, insert, update, delete on notes to shop_svc;
    grant usage on sequence numbers, hidden to shop_svc;
    revoke execute on function slug(text) from public;
    grant execute on function slug(text) to shop_svc;
    grant all on members to shop_svc;
";
const QUERIES: &str = "
    insert into notes (id, said) select nextval('numbers'), slug($1);
    select longest(n.said) from notes n where similarity(n.said, $1) > 0.3;
";
/// Another part of the application runs this with the same role.
const OF_OTHERS: &str = "statement: select longest(said), lonely() from members";
const HIDDEN: &str = "sequence public.hidden";
const BROUGHT: [&str; 5] = [
    "sequence public.numbers",
    HIDDEN,
    "function public.slug(pg_catalog.text)",
    "aggregate public.longest(pg_catalog.text)",
    "extension pg_trgm",
];

fn with_queries(fixture: Fixture) -> Fixture {
    let log = logged("shop_svc", OF_OTHERS);
    for (file, content) in [("queries.sql", QUERIES), ("server.csv", &log)] {
        std::fs::write(fixture.folder.path().join(file), content).expect("written");
    }
    fixture
}

#[test]
fn what_only_statements_use_is_named_by_the_plan_and_comes_along_if_the_manifest_brings_it() {
    let fixture = with_queries(Fixture::two_clusters(SCHEMA, &manifest(&[])));
    let said = fixture.done(&["plan", OWNER]);
    let built = "warning: along: default value for public.notes.at: it finds an object by a text that it builds";
    assert!(said.contains(built), "{said}");
    for object in BROUGHT.iter().filter(|object| **object != HIDDEN) {
        assert!(said.contains(&format!("warning: along: {object}: the application's statements need it")), "{said}");
    }
    assert!(said.contains(&format!("warning: along: {HIDDEN}: shop_svc was given rights on it")), "{said}");
    assert!(said.contains("note: along: function public.lonely(): nothing in the database uses them"), "{said}");
    execute(&fixture.target, "create sequence hidden");
    assert!(!fixture.done(&["plan", OWNER]).contains(HIDDEN));
    execute(&fixture.target, "drop sequence hidden");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest(&BROUGHT)).expect("written");
    let before = [fixture.definitions(&fixture.source), fixture.definitions(&fixture.target)];
    let said = fixture.done(&["plan", OWNER]);
    assert!(!said.contains("the application's statements need it"), "{said}");
    fixture.done(&["rehearse", OWNER]);
    fixture.copied();
    let more = [&BROUGHT[..], &["function public.lonely()"]].concat();
    std::fs::write(fixture.folder.path().join("split.toml"), manifest(&more)).expect("written");
    fixture.refused(
        &["copy", OWNER],
        "`bring` has named these since the copy, which brings nothing more: function public.lonely()",
    );
    std::fs::write(fixture.folder.path().join("split.toml"), manifest(&BROUGHT)).expect("written");
    fixture.done(&["copy", OWNER]);
    let work = "set role shop_svc; insert into notes (id, said) select nextval('numbers'), slug('A b');
                select longest(n.said) from notes n where similarity(n.said, 'a-b') > 0.3";
    for (step, url) in [("cutover", &fixture.target), ("rollback", &fixture.source), ("cutover", &fixture.target)] {
        fixture.done(&["verify", OWNER]);
        fixture.done(&[step, OWNER]);
        execute(url, work);
    }
    assert_eq!(strings(&fixture.target, "select said from notes order by id"), ["one", "a-b", "a-b", "a-b"]);
    assert_eq!(strings(&fixture.target, "select (min(id) > 41)::text from notes where said = 'a-b'"), ["true"]);
    for step in ["verify", "rollback", "abort"] {
        fixture.done(&[step, OWNER]);
    }
    fixture.assert_as(&before, "after the abort");
}

const OF_BOTH: &str = "create function of_both() returns bigint language sql as 'select count(*) from members, notes'";

#[test]
fn what_the_manifest_cannot_bring_is_refused_with_the_reason() {
    for (object, reason) in [
        ("function public.none()", "`bring` names it: the source has no such object"),
        ("table public.members", "`bring` names it: list it in `tables` or `views`"),
        ("index public.members_pkey", "`bring` names it: it comes and stays with what it is a part of"),
        ("function public.of_members()", "it uses public.members, which stays, so the target cannot have it: take it out"),
        ("function public.of_both()", "`bring` names it, and it uses both sides: take it out of `bring`"),
    ] {
        let fixture = with_queries(Fixture::one_cluster(SCHEMA, &manifest(&[object])));
        execute(&fixture.source, OF_BOTH);
        fixture.refused(&["plan", OWNER], &format!("error: along: {object}: {reason}"));
    }
}
