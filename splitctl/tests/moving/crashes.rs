//! `kill -9` at every point of every command: the same command does the rest, or `abort` undoes the move.

use super::app::{App, MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, execute, said, strings};

/// What else a move handles: an owner that is the application's own role, a table without a key, a table that no owner has,
/// every kind of object that `detach` takes off, and what comes along.
const MORE: &str = "
    create table schema_migrations (version text primary key);
    insert into schema_migrations values ('1'), ('2');
    create table lines (said text);
    insert into lines select 'line ' || i % 7 from generate_series(1, 300) i;
    create table counts (tenant_id integer primary key references tenants, notes integer not null);
    insert into counts values (1, 0);
    grant select on counts to other_svc;
    alter table notes owner to shop_svc;
    alter table lines owner to shop_svc;
    grant select (id) on notes to other_svc with grant option;
    create materialized view recent as select id, count(*) as notes from notes group by id;
    create unique index on recent (id);
    alter materialized view recent owner to shop_svc;
    create function stamp() returns trigger language plpgsql as 'begin return new; end';
    create trigger stamp before update on notes for each row execute function stamp();
    create statistics noted on tenant_id, token from notes;
    create function fits(text) returns boolean language sql immutable return length($1) < 1000;
    create domain saying as text check (fits(value));
    alter domain saying add constraint told check (fits(value)) not valid;
    alter table lines alter said type saying;
    alter table lines add constraint fits check (fits(said));
    alter table lines enable row level security;
    create policy all_lines on lines using (true);

    create function count_note() returns trigger language plpgsql security definer set search_path = public as
        'begin update counts set notes = notes + 1 where tenant_id = new.tenant_id; return null; end';
    create trigger count_note after insert on notes for each row execute function count_note();
    comment on trigger count_note on notes is 'counts';
    create view tenant_notes with (security_barrier) as
        select t.id, n.token from tenants t join notes n on n.tenant_id = t.id;
    grant select on tenant_notes to other_svc;
    create materialized view totals as
        select t.id, count(*) as notes from tenants t join notes n on n.tenant_id = t.id group by t.id;
    create unique index on totals (id);
    create function tenant_of(note bigint) returns integer language sql stable as
        'select t.id from notes n join tenants t on t.id = n.tenant_id where n.id = note';
    revoke execute on function tenant_of(bigint) from public;
    grant execute on function tenant_of(bigint) to other_svc;
";

/// The function as it was at first.
const FIRST_EPOCH: &str = "create or replace function log_epoch() returns bigint
    language sql stable parallel safe as 'select 1::bigint'";

fn with_more(fixture: Fixture) -> Fixture {
    execute(&fixture.source, MORE);
    let manifest = MANIFEST
        .replace("[\"notes\"]\n", "[\"notes\", \"lines\"]\n    views = [\"recent\"]\n")
        .replace("[\"tenants\"]", "[\"tenants\", \"counts\"]")
        .replace("[owners.shop]", "unowned = [\"schema_migrations\"]\n    [owners.shop]");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    fixture
}

/// After a crash, `status` must work.
fn has_status(fixture: &Fixture) -> String {
    fixture.done(&["status", OWNER])
}

/// Runs a command that dies at its first point, then again until it dies at its second, and so on until it succeeds. The
/// service writes in between. Returns how often the command died.
fn die_everywhere(fixture: &Fixture, app: &mut App, arguments: &[&str]) -> usize {
    for point in 1.. {
        let mut command = fixture.command(arguments);
        let output = command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs");
        let (code, text) = said(&output);
        app.write();
        match code {
            Some(0) => return point - 1,
            None => assert!(text.contains("dying at point"), "{arguments:?}: {text}"),
            other => panic!("{arguments:?}, point {point}: {other:?} {text}"),
        }
        has_status(fixture);
        assert!(point < 100, "{arguments:?} never ends");
    }
    unreachable!("it returns")
}

fn every_step_survives_a_crash(fixture: &Fixture) {
    let mut app = App::new(fixture);
    let mut died = 0;
    for step in
        ["copy", "verify", "detach", "cutover", "verify", "rollback", "verify", "detach", "cutover", "verify", "complete"]
    {
        died += die_everywhere(fixture, &mut app, &[step, OWNER]);
        app.check();
    }
    assert!(died > 30, "only {died} points");
    fixture.assert_clean();
    assert_eq!(strings(&fixture.source, "select coalesce(to_regclass('notes')::text, 'gone')"), ["gone"]);
}

#[test]
fn a_command_that_was_killed_anywhere_succeeds_when_it_is_repeated() {
    let fixture = with_more(Fixture::two_clusters(SCHEMA, MANIFEST));
    every_step_survives_a_crash(&fixture);
    let made = "select relkind::text || ' ' || relname::text from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'm', 'v')
        order by 1";
    assert_eq!(strings(&fixture.source, made), ["r counts", "r schema_migrations", "r tenants"]);
    assert_eq!(strings(&fixture.target, made), ["m recent", "r lines", "r notes", "r schema_migrations"]);
    let triggers = "select tgname::text from pg_trigger where not tgisinternal and tgrelid = 'notes'::regclass";
    assert_eq!(strings(&fixture.target, triggers), ["stamp"]);
    let guarded = "select concat_ws(' ', relrowsecurity, polname, conname)
        from pg_class c join pg_policy p on p.polrelid = c.oid join pg_constraint d on d.contypid = 'saying'::regtype
        where c.relname = 'lines' order by 1";
    assert_eq!(strings(&fixture.target, guarded), ["t all_lines saying_check", "t all_lines told"]);
}

#[test]
fn a_command_that_was_killed_anywhere_succeeds_when_it_is_repeated_within_a_cluster() {
    every_step_survives_a_crash(&Fixture::one_cluster(SCHEMA, MANIFEST));
}

/// Of each kind of statement one: what adds, what takes away, rows, and what no transaction may hold.
const MIGRATION: &str = "
    alter table notes add column said text;
    update notes set said = 'old' where token like 'old %';
    alter table notes add constraint said_short check (length(said) < 10);
    alter table notes drop column said;
    create index if not exists notes_tenant on notes (tenant_id);
";

#[test]
fn a_migration_that_was_killed_anywhere_is_done_once_when_it_is_repeated() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    let migration = |fixture: &Fixture, script: &str| {
        std::fs::write(fixture.folder.path().join("migration.sql"), script).expect("written");
    };
    let mut app = App::new(&fixture);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    migration(&fixture, MIGRATION);
    let died = die_everywhere(&fixture, &mut app, &["migrate", OWNER, "migration.sql"]);
    assert!(died > 4, "only {died} points");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    app.write();
    migration(&fixture, &MIGRATION.replace("said", "told").replace("notes_tenant", "notes_tenants"));
    die_everywhere(&fixture, &mut app, &["migrate", OWNER, "migration.sql"]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    app.write();
    app.check();
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

/// How a move is aborted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Abort {
    /// It dies at each point, too.
    Killed,
    Undisturbed,
}

/// The points of a step from which a move is aborted: every third one, or all if `TEST_EVERY_POINT` is set, as `.ci/full`
/// does.
fn points() -> impl Iterator<Item = usize> {
    let every = std::env::var_os("TEST_EVERY_POINT").is_some();
    (1..).step_by(if every { 1 } else { 3 })
}

/// The step dies at one point and the move is aborted from there; then at the next point.
fn is_aborted(fixture: &Fixture, before: &[&str], step: &str, abort: Abort) {
    let mut app = App::new(fixture);
    let definitions = [&fixture.source, &fixture.target].map(|url| fixture.definitions(url));
    for point in points() {
        for step in before {
            fixture.done(&[step, OWNER]);
            // The service notices each switch, as the contract says.
            app.write();
        }
        let mut command = fixture.command(&[step, OWNER]);
        let (code, text) = said(&command.env("SPLITCTL_DIE_AT", point.to_string()).output().expect("it runs"));
        println!("{step}, point {point}: {text}");
        app.write();
        assert!(code == Some(0) || text.contains("dying at point"), "{step}: {code:?} {text}");
        let status = has_status(fixture);
        if status.contains("no move of shop is open") {
            // It died before there was anything to abort.
            continue;
        }
        let back = ["rollback", "abort"].into_iter().filter(|back| *back == "abort" || status.contains("splitctl rollback"));
        for back in back {
            // The service follows before the tables are gone.
            app.write();
            match abort {
                Abort::Killed => drop(die_everywhere(fixture, &mut app, &[back, OWNER])),
                Abort::Undisturbed => drop(fixture.done(&[back, OWNER])),
            }
        }
        fixture.assert_clean();
        app.check();
        is_as_before(fixture, &definitions, &format!("{step} killed at point {point}, then aborted"));
        if code == Some(0) {
            return;
        }
    }
}

/// Compares the definitions and rights of both sides. An epoch only rises, so that one is compared as it was at first.
fn is_as_before(fixture: &Fixture, definitions: &[Vec<String>; 2], when: &str) {
    let raised = strings(&fixture.source, "select pg_get_functiondef('log_epoch'::regproc)");
    execute(&fixture.source, FIRST_EPOCH);
    fixture.assert_as(definitions, when);
    execute(&fixture.source, &raised[0]);
    let unfilled = "select relname::text from pg_class where not relispopulated";
    assert_eq!(strings(&fixture.source, unfilled), [""; 0]);
}

#[test]
fn a_copy_that_was_killed_anywhere_can_be_aborted() {
    is_aborted(&with_more(Fixture::one_cluster(SCHEMA, MANIFEST)), &[], "copy", Abort::Killed);
}

#[test]
fn a_detach_that_was_killed_anywhere_can_be_aborted() {
    is_aborted(&with_more(Fixture::one_cluster(SCHEMA, MANIFEST)), &["copy", "verify"], "detach", Abort::Undisturbed);
}

#[test]
fn a_cutover_that_was_killed_anywhere_can_be_aborted() {
    let fixture = with_more(Fixture::two_clusters(SCHEMA, MANIFEST));
    is_aborted(&fixture, &["copy", "verify", "detach"], "cutover", Abort::Killed);
}

#[test]
fn detach_attach_rollback_and_abort_that_were_killed_anywhere_put_everything_back() {
    let fixture = with_more(Fixture::two_clusters(SCHEMA, MANIFEST));
    let definitions = [&fixture.source, &fixture.target].map(|url| fixture.definitions(url));
    let mut app = App::new(&fixture);
    fixture.copied();
    for step in ["detach", "attach", "detach"] {
        die_everywhere(&fixture, &mut app, &[step, OWNER]);
    }
    fixture.done(&["cutover", OWNER]);
    app.write();
    for step in ["rollback", "abort"] {
        die_everywhere(&fixture, &mut app, &[step, OWNER]);
        app.check();
    }
    is_as_before(&fixture, &definitions, "after the abort");
}
