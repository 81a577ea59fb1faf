//! A migration while a move stands: both sides get it, in the order that the stream survives.

use std::process::{Child, Stdio};

use super::fixture::{Fixture, OWNER, execute, strings};

const SCHEMA: &str = "
    create type kind as enum ('small');
    create table notes (
        id bigint generated always as identity primary key,
        said text not null,
        amount integer not null default 1,
        kind kind not null default 'small'
    );
    create table places (id integer primary key, name varchar(20), gone text not null check (gone <> 'never'));
    create table readings (id bigint, day date, primary key (id, day)) partition by range (day);
    create table readings_1 partition of readings for values from ('2026-01-01') to ('2027-01-01');
    create table members (id integer primary key);
    insert into notes (said) select 'note ' || i from generate_series(1, 500) i;
    insert into places select i, 'place ' || i, 'soon' from generate_series(1, 500) i;
    insert into readings select i, '2026-03-01' from generate_series(1, 100) i;
    grant select, insert, update, delete on notes, places, readings to shop_svc;
";

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    unowned = ["_sqlx_migrations"]
    [owners.shop]
    role = "shop_svc"
    tables = ["notes", "places", "readings"]
    target = "$TARGET_URL"
    [owners.other]
    role = "other_svc"
    tables = ["members"]
"#;

/// It only uses what every version of the tables has.
const LOAD: &str = "
    do $$ begin
        set role shop_svc;
        for i in 1..1000000 loop
            insert into notes (said) values ('new');
            update notes set said = said || '.' where id = i % 500;
            update places set name = 'name ' || i where id = i % 500;
            insert into readings select max(id) + 1, '2026-04-01' from readings;
            commit;
        end loop;
    end $$";

fn load(url: &str) -> Child {
    let mut psql = std::process::Command::new("psql");
    psql.arg(url).args(["-q", "-c", LOAD]).stdout(Stdio::null()).stderr(Stdio::piped());
    psql.spawn().expect("psql runs")
}

/// Nothing but this kill has ended the load.
fn is_undisturbed(mut load: Child) {
    assert!(load.try_wait().expect("asked").is_none(), "the load has ended: {:?}", load.wait_with_output());
    load.kill().expect("killed");
    load.wait().expect("ended");
}

fn write(fixture: &Fixture, file: &str, script: &str) {
    std::fs::write(fixture.folder.path().join(file), script).expect("written");
}

fn migrated(fixture: &Fixture, script: &str) -> String {
    write(fixture, "migration.sql", script);
    fixture.done(&["migrate", OWNER, "migration.sql"])
}

const OUT: &str = "
    begin;
    -- Each statement is one kind of change.
    set statement_timeout = '1min';
    alter table notes add column note text;
    alter table notes add column stars integer not null default 3;
    update notes set note = 'filled; here' where note is null;
    alter table notes alter column note set default 'none';
    alter table notes add constraint starred check (stars > 0);
    alter table notes alter column amount type bigint;
    alter table places alter column name type text;
    alter table places drop column gone;
    alter type kind add value 'large';
    create table readings_2 partition of readings for values from ('2027-01-01') to ('2028-01-01');
    create index notes_note on notes (note);
    create index concurrently notes_stars on notes (stars);
    create unique index places_key on places (id, name);
    comment on column notes.note is 'what was said';
    grant select (note) on notes to other_svc;
    do $$ begin alter table notes add column done boolean; end $$;
    commit;
";

const BACK: &str = "
    update notes set note = 'late' where note is null;
    alter table notes alter column note set not null;
    alter table notes drop constraint starred;
    alter table notes drop column done;
    alter table notes add column later timestamptz;
    drop table readings_2;
    insert into readings values (1, '2026-05-05');
";

#[test]
fn a_migration_runs_on_both_sides_under_load_out_and_back() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    let running = load(&fixture.source);
    let said = migrated(&fixture, OUT);
    assert!(said.contains("the sending side first: alter table places drop column gone"), "{said}");
    assert!(said.contains("the sending side only: update notes set note = '…' where note is null"), "{said}");
    fixture.done(&["verify", OWNER]);
    is_undisturbed(running);
    let note = "select count(*)::text from notes where note = 'filled; here' and stars = 3";
    assert!(strings(&fixture.target, note)[0].parse::<i32>().is_ok_and(|rows| rows > 400));
    assert!(fixture.done(&["status", OWNER]).contains(", 0 failures"));

    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role other_svc; select note from notes");
    let running = load(&fixture.target);
    migrated(&fixture, BACK);
    fixture.done(&["verify", OWNER]);
    is_undisturbed(running);
    assert!(fixture.done(&["status", OWNER]).contains(", 0 failures"));
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
    let columns = "select string_agg(attname, ' ' order by attnum) from pg_attribute
        where attrelid = 'notes'::regclass and attnum > 0 and not attisdropped";
    assert_eq!(strings(&fixture.source, columns), ["id said amount kind note stars later"]);
}

#[test]
fn what_no_stream_survives_is_refused_with_the_reason_and_nothing_is_changed() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    let both = || [&fixture.source, &fixture.target].map(|url| fixture.definitions(url));
    let before = both();
    for (statement, reason) in [
        ("alter table notes rename column said to told", "the stream still names notes.said"),
        ("alter table notes rename to remarks", "the table notes is gone"),
        ("drop table places", "the table places is gone"),
        ("alter table notes alter column amount type smallint", "not every value of the old type"),
        (
            "alter table places alter column name type varchar(5)",
            "value too long for type character varying(5): use a new column",
        ),
        ("alter table places alter column name type text using upper(name)", "use a new column"),
        ("alter table notes add column at timestamptz default now()", "other values on either side"),
        ("alter table notes add column one uuid default gen_random_uuid()", "other values on either side"),
        ("alter table notes add column n bigint generated always as identity", "other values on either side"),
        ("alter table notes drop constraint notes_pkey", "the key of notes changes"),
        ("alter table readings detach partition readings_1", "keeps its rows on one side only"),
        ("alter table readings detach partition readings_1 concurrently", "keeps its rows on one side only"),
        ("alter table notes add column a integer, add check (amount > 0)", "write a statement for each"),
        ("alter table notes replica identity nothing", "the key of notes changes"),
        ("create table heirs () inherits (notes)", "a read of the parent would have other rows"),
        ("truncate notes", "use `delete`"),
        ("alter table members add column name text", "what concerns tables that stay"),
        ("set local search_path = public", "each statement is a transaction of its own"),
        ("alter table notes add column fine text; nonsense", "statement 2 (nonsense)"),
    ] {
        write(&fixture, "migration.sql", statement);
        let said = fixture.refused(&["migrate", OWNER, "migration.sql"], reason);
        assert!(said.contains("Nothing was changed"), "{statement}: {said}");
        assert_eq!(both(), before, "{statement}");
    }
    write(&fixture, "migration.sql", "alter table notes add column fine text");
    let said = fixture.done(&["migrate", OWNER, "migration.sql", "--dry-run"]);
    assert!(said.contains("the receiving side first: alter table notes") && said.contains("nothing was run"), "{said}");
    assert_eq!(both(), before);
    fixture.done(&["verify", OWNER]);
}

#[test]
fn a_statement_that_the_rows_refuse_leaves_both_sides_alike_and_is_continued() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    let script = "alter table notes add column note text;
        alter table notes add constraint short check (length(said) < 8);
        alter table notes add column more text";
    write(&fixture, "migration.sql", script);
    let said = fixture.refused(&["migrate", OWNER, "migration.sql"], "statement 2 of 3");
    assert!(said.contains("Both sides are alike") && said.contains("short"), "{said}");
    // The guard knows what was done, so it refuses nobody else's change.
    for url in [&fixture.source, &fixture.target] {
        execute(url, "create table of_others (id integer)");
    }
    fixture.done(&["verify", OWNER]);
    execute(&fixture.source, "update notes set said = 'short'");
    fixture.done(&["migrate", OWNER, "migration.sql"]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    let columns = "select string_agg(attname, ' ' order by attnum) from pg_attribute
        where attrelid = 'notes'::regclass and attnum > 4 and not attisdropped";
    assert_eq!(strings(&fixture.target, columns), ["note more"]);
}

#[test]
fn new_migrations_of_sqlx_run_and_are_recorded_on_both_sides() {
    let table = "create table _sqlx_migrations (version bigint primary key, description text not null,
            installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null,
            execution_time bigint not null);
        insert into _sqlx_migrations values (1, 'first', now(), true, '', 0);";
    let fixture = Fixture::two_clusters(&format!("{SCHEMA}{table}"), MANIFEST);
    std::fs::create_dir(fixture.folder.path().join("migrations")).expect("a folder");
    write(&fixture, "migrations/1_first.sql", "create table never (id integer)");
    write(&fixture, "migrations/2_second.up.sql", "alter table notes add column second text");
    write(&fixture, "migrations/2_second.down.sql", "alter table notes drop column second");
    write(&fixture, "migrations/3_third.up.sql", "alter table notes add column third text; update notes set third = '3'");
    write(&fixture, "migrations/3_third.down.sql", "alter table notes drop column third");
    write(&fixture, "migrations/4_fourth.up.sql", "alter table notes alter column third set default 'three'");
    write(&fixture, "migrations/4_fourth.down.sql", "alter table notes alter column third drop default");
    fixture.copied();
    let said = fixture.done(&["migrate", OWNER, "--sqlx", "migrations", "--dry-run"]);
    assert!(said.contains("4 fourth:") && said.contains("nothing was run"), "{said}");
    let said = fixture.done(&["migrate", OWNER, "--sqlx", "migrations"]);
    assert!(said.contains("2 second:") && said.contains("3 third:") && !said.contains("1 first"), "{said}");
    assert!(fixture.done(&["migrate", OWNER, "--sqlx", "migrations"]).contains("no migration is new"));
    let recorded = "select concat_ws(' ', version, installed_on, length(checksum)) from _sqlx_migrations order by version";
    assert_eq!(strings(&fixture.source, recorded), strings(&fixture.target, recorded));
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    assert_eq!(strings(&fixture.target, "select count(*)::text from notes where third = '3'"), ["500"]);
}

#[test]
fn the_guard_names_the_command() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    fixture.copied();
    let add = ["-v", "ON_ERROR_STOP=1", "-c", "alter table notes add column note text"];
    let refused = std::process::Command::new("psql").arg(&fixture.source).args(add).output().expect("psql runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("splitctl migrate"), "{said}");
}
