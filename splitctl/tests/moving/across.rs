//! What uses both sides: it is left behind, taken off and put back, or refused, and all commands agree on that.

use super::fixture::{Fixture, OWNER, execute, strings, try_execute};

/// No other owner is listed: whatever the owner does not list stays.
fn manifest(more: &str) -> String {
    format!(
        r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["notes", "lines"]
        target = "$TARGET_URL"
        {more}
        "#
    )
}

fn schema(more: &str) -> String {
    format!(
        "create table notes (id integer primary key, said text, tenant integer);
         create table lines (id integer primary key, note_id integer references notes);
         create table members (id integer primary key, name text, notes bigint);
         insert into notes values (1, 'one', 1), (2, 'two', 2);
         insert into lines values (1, 1);
         insert into members values (1, 'ann', 0), (2, 'bob', 0);
         grant select, insert, update, delete on notes, lines to shop_svc;
         grant select, insert, update, delete on members to other_svc, shop_svc;
         {more}"
    )
}

/// The triggers, rules, policies, defaults and checks of the source.
const PARTS: &str = "
    select format('%s %s %s', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
    from pg_trigger t where not t.tgisinternal and t.tgname not like 'splitctl%'
    union all
    select format('%s %s %s', pg_get_ruledef(r.oid), r.ev_enabled, obj_description(r.oid, 'pg_rewrite'))
    from pg_rewrite r where r.oid >= 16384 and r.rulename <> '_RETURN'
    union all
    select format('%s %s', p, obj_description(y.oid, 'pg_policy'))
    from pg_policies p join pg_policy y on y.polname = p.policyname
    union all
    select format('%s %s', d.adrelid::regclass, pg_get_expr(d.adbin, d.adrelid))
    from pg_attrdef d where d.adrelid::regclass::text not like 'splitctl%'
    union all
    select format('%s %s %s', c.conname, pg_get_constraintdef(c.oid), obj_description(c.oid, 'pg_constraint'))
    from pg_constraint c where c.oid >= 16384 and contype <> 'n' and c.connamespace = 'public'::regnamespace
    order by 1";

/// Parts of tables that move. Each uses a table that stays, most of them only in the body of a function.
const OF_MOVING: &str = "
    create function members_of(tenant integer) returns bigint language plpgsql stable as
        'begin return (select count(*) from public.members m where m.id = tenant); end';
    create function next_tenant() returns integer language plpgsql as
        'begin return public.members_of(1) + 40; end';
    alter table notes alter column tenant set default next_tenant();
    alter table notes add constraint tenant_known check (members_of(tenant) is not null);
    alter table notes enable row level security;
    create policy all_rows on notes using (true);
    create policy members_only on notes for select to shop_svc using (members_of(tenant) > 0);
    create function counted() returns trigger language plpgsql as
        'begin update public.members set notes = notes + 1 where id = new.tenant; return new; end';
    create trigger counted after insert on notes for each row execute function counted();
    create rule told as on delete to lines do also update members set notes = notes - 1 where id = old.note_id;
    comment on rule told on lines is 'Tells the members';
";

#[test]
fn what_cannot_come_along_is_an_error_until_the_manifest_leaves_it_behind_and_then_no_command_minds() {
    let fixture = Fixture::two_clusters(&schema(OF_MOVING), &manifest(""));
    let said = fixture.refused(&["plan", OWNER], "error: along: ");
    for finding in [
        "error: along: default value for public.notes.tenant: it uses public.members (through public.next_tenant())",
        "error: along: table constraint tenant_known on public.notes: it uses public.members",
        "error: along: policy members_only on public.notes: it uses public.members",
        "warning: crossings: trigger counted on public.notes: it uses public.members (through public.counted())",
        "warning: crossings: rule told on public.lines: it uses public.members",
    ] {
        let finding = finding.replace("public.next_tenant", "next_tenant").replace("public.counted", "counted");
        assert!(said.lines().any(|line| line.starts_with(&finding)), "{finding}: {said}");
    }
    let left = r#"leave = ["default value for public.notes.tenant", "table constraint tenant_known on public.notes",
        "policy members_only on public.notes"]"#;
    std::fs::write(fixture.folder.path().join("split.toml"), manifest(left)).expect("written");
    let before = strings(&fixture.source, PARTS);
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    let on_target = "select count(*)::text from (
         select 1 from pg_attrdef where adrelid = 'notes'::regclass
         union all select 1 from pg_constraint where conname = 'tenant_known'
         union all select 1 from pg_policy where polname = 'members_only'
         union all select 1 from pg_trigger where tgname = 'counted'
         union all select 1 from pg_rewrite where rulename = 'told') left_behind";
    assert_eq!(strings(&fixture.target, on_target), ["0"]);
    let said = fixture.refused(&["cutover", OWNER], "trigger counted on public.notes: it uses public.members");
    assert!(said.contains("rule told on public.lines") && !said.contains("members_only"), "{said}");
    let said = fixture.done(&["detach", OWNER]);
    assert!(said.contains("notes: the trigger counted is dropped") && said.contains("lines: the rule told"), "{said}");
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl cutover"));
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role shop_svc; insert into notes values (7, 'seven'); delete from lines");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    assert_eq!(strings(&fixture.source, PARTS), before);
    execute(&fixture.source, "set role shop_svc; insert into notes (id) values (8)");
    assert_eq!(
        strings(&fixture.source, "select coalesce(tenant::text, 'none') from notes where id in (7, 8) order by id"),
        ["none", "41"]
    );
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, PARTS), before);
    fixture.assert_clean();
}

/// Parts of a table that stays, which use tables that move.
const OF_STAYING: &str = r"
    create function notes_of(member integer) returns bigint language plpgsql stable security definer as
        'begin return (select count(*) from public.notes n where n.tenant = member); end';
    alter table members alter column notes set default notes_of(1);
    alter table members add constraint few check (notes_of(id) < 100);
    comment on constraint few on members is E'Few\r\nnotes';
    alter table members add constraint none check (notes_of(id) < 0) not valid;
    alter table members enable row level security;
    create policy all_rows on members using (true);
    create policy writers on members for update to other_svc, shop_svc
        using (exists (select from notes n where n.tenant = members.id)) with check (name <> 'x');
    comment on policy writers on members is 'Who writes';
    create rule gone as on delete to members where old.id > 0 do also delete from notes where tenant = old.id;
    alter table members disable rule gone;
    create function told() returns trigger language plpgsql as
        'begin insert into public.lines values (new.id + 100, null); return new; end';
    create trigger told after insert on members for each row execute function told();
    alter table members disable trigger told;
    create view busy as select id from members where notes_of(id) > 0;
    create materialized view kept as select id from busy;
    create unique index on kept (id);
    grant select on busy to other_svc;
";

#[test]
fn parts_of_a_table_that_stays_are_taken_off_and_come_back_to_the_letter() {
    let fixture = Fixture::two_clusters(&schema(OF_STAYING), &manifest(""));
    let before = strings(&fixture.source, PARTS);
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("crossings: policy writers on public.members: it uses public.notes, which moves"), "{said}");
    fixture.copied();
    let said = fixture.done(&["detach", OWNER]);
    for object in [
        "members: the default of notes",
        "members: the check few",
        "members: the check none",
        "members: the policy writers",
        "members: the rule gone",
        "members: the trigger told",
        "busy: the view",
    ] {
        assert!(said.contains(&format!("{object} is dropped")), "{object}: {said}");
    }
    fixture.done(&["attach", OWNER]);
    assert_eq!(strings(&fixture.source, PARTS), before);
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    // The application of the table that stays goes on.
    execute(&fixture.source, "set role other_svc; insert into members values (3, 'eve'); select name from members");
    fixture.done(&["rollback", OWNER]);
    assert_eq!(strings(&fixture.source, PARTS), before);
    execute(&fixture.source, "set role other_svc; select id from busy");
    assert_eq!(strings(&fixture.source, "select id::text from kept order by 1"), ["1", "2"]);
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, PARTS), before);
    fixture.assert_clean();
}

#[test]
fn what_cannot_be_taken_off_without_changing_who_sees_what_is_refused_before_the_copy() {
    let binding = "
        alter table members enable row level security;
        create policy all_rows on members using (true);
        create policy never_more on members as restrictive using (exists (select from notes n where n.tenant = id));
        create view pairs as select n.id, m.name from notes n join members m on m.id = n.tenant;";
    let fixture = Fixture::one_cluster(&schema(binding), &manifest(r#"views = ["pairs"]"#));
    let said = fixture.refused(&["copy", OWNER], "policy never_more on public.members: it uses public.notes, which moves");
    assert!(said.contains("view public.pairs: it uses public.members, which stays"), "{said}");
    assert!(said.contains("take it out of the owner's `views`"), "{said}");
    execute(&fixture.source, "drop policy never_more on members");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest("")).expect("written");
    fixture.copied();
    let said = fixture.done(&["detach", OWNER]);
    assert!(said.contains("pairs: the view is dropped"), "{said}");
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["rollback", OWNER]);
    assert_eq!(strings(&fixture.source, "select count(*)::text from pairs"), ["2"]);
}

/// Parts of partitioned tables, and of their partitions, on both sides.
const OF_PARTITIONS: &str = "
    create table days (id integer, day date, primary key (day, id)) partition by range (day);
    create table days_1 partition of days for values from ('2025-01-01') to ('2026-01-01');
    create function count_members() returns integer language plpgsql as
        'begin return (select count(*) from public.members); end';
    create function has_members(n integer) returns boolean language plpgsql as
        'begin return (select count(*) from public.members) >= 0; end';
    create table events (
        id integer, day date, member integer references members, n integer default count_members(),
        primary key (day, id), constraint members_known check (has_members(n))
    ) partition by range (day);
    create table events_1 partition of events for values from ('2025-01-01') to ('2026-01-01');
    create table events_2 partition of events for values from ('2026-01-01') to ('2027-01-01') partition by range (day);
    create table events_2_1 partition of events_2 default;
    alter table events_2 add constraint its_own foreign key (member) references members;
    alter table days_1 add constraint to_notes foreign key (id) references notes;
    create function write_note() returns trigger language plpgsql as
        'begin insert into public.notes values (new.id + 100); return new; end';
    create trigger writes after insert on days for each row execute function write_note();
    create trigger writes_again after insert on days_1 for each row execute function write_note();
    create function read_days() returns trigger language plpgsql as 'begin perform from public.days; return new; end';
    create trigger reads after insert on events for each row execute function read_days();
    create trigger reads_again after insert on events_2 for each row execute function read_days();
    alter table only days_1 enable always trigger writes;
    alter table only events_2 disable trigger reads;
    insert into events values (1, '2025-02-02', 1), (2, '2026-02-02', 1);
    grant all on events to shop_svc;
";

#[test]
fn what_crosses_at_a_partition_comes_back_to_the_letter_too() {
    let left = r#"leave = ["default value for public.events.n", "table constraint members_known on public.events"]"#;
    let manifest = manifest(left).replace(r#""lines"]"#, r#""lines", "events"]"#);
    let fixture = Fixture::two_clusters(&schema(OF_PARTITIONS), &manifest);
    let before = strings(&fixture.source, PARTS);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role shop_svc; insert into events values (3, '2026-03-03', 9)");
    let inserted = "select coalesce(n::text, 'none') from events where id = 3";
    assert_eq!(strings(&fixture.target, inserted), ["none"]);
    execute(&fixture.target, "delete from events where id = 3");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    assert_eq!(strings(&fixture.source, PARTS), before);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

/// Names that the catalog records nowhere, and sequences behind functions that the application calls.
const BY_NAME: &str = r#"
    create sequence numbers start 1000;
    create sequence tickets start 5000;
    grant usage on sequence numbers, tickets to shop_svc;
    alter table notes alter column tenant set default nextval('numbers'::text);
    create function add_line(note integer) returns bigint language plpgsql as $$
        declare
            made lines%rowtype;
            seen public.lines;
            n bigint := nextval('tickets');
        begin
            insert into lines values (n, note) returning * into made;
            seen := made;
            execute 'select count(*) from lines where id = $1' into n using made.id;
            perform 1 from notes where id = note;
            return seen.id;
        end $$;
    create function list_lines() returns table (id integer, note_id integer) language sql stable
        begin atomic select l.id, l.note_id from lines l order by 1; end;
"#;

#[test]
fn what_is_found_by_a_text_when_it_runs_comes_along_and_its_numbers_go_on() {
    let fixture = Fixture::two_clusters(&schema(BY_NAME), &manifest(""));
    execute(&fixture.source, "set role shop_svc; insert into notes (id) values (3); select add_line(1), add_line(1)");
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role shop_svc; insert into notes (id) values (4); select add_line(1)");
    let drawn = "select (tenant > 1000)::text from notes where id = 4
        union all select (max(id) > 5001)::text from list_lines()";
    assert_eq!(strings(&fixture.target, drawn), ["true", "true"]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    execute(&fixture.source, "set role shop_svc; insert into notes (id) values (5); select add_line(1)");
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

/// The function of a trigger finds what the trigger's arguments name.
#[test]
fn what_the_arguments_of_a_trigger_name_comes_along() {
    let named = "
        create text search configuration plain (copy = simple);
        alter table notes add words tsvector;
        create trigger words before insert or update on notes
            for each row execute function tsvector_update_trigger(words, 'public.plain', said);";
    let fixture = Fixture::two_clusters(&schema(named), &manifest(""));
    let plan = fixture.done(&["plan", OWNER]);
    assert!(!plan.contains("warning: "), "{plan}");
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role shop_svc; insert into notes (id, said) values (3, 'Tea and cups')");
    assert_eq!(strings(&fixture.target, "select words::text from notes where id = 3"), ["'and':2 'cups':3 'tea':1"]);
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

/// What the other side lacks after each change, or nothing if no stream would miss it.
const CHANGES: [(&str, &str); 6] = [
    (
        "create trigger later before insert on notes for each row execute function stamp()",
        "trigger later on public.notes is now: CREATE TRIGGER later",
    ),
    ("create policy late on notes using (id > 0)", "policy late on public.notes is now: "),
    ("create rule late as on delete to lines do also nothing", "rule late on public.lines is now: "),
    ("alter table lines add foreign key (id) references notes", "table constraint lines_id_fkey on public.lines is now: "),
    (
        "create or replace function stamp() returns trigger language plpgsql as 'begin new.said := 7; return new; end'",
        "function public.stamp() is now: ",
    ),
    ("alter table notes disable trigger stamp", "trigger stamp on public.notes is now: "),
];

#[test]
fn what_changes_on_the_tables_during_a_move_is_named_until_the_other_side_has_it() {
    let stamp = "
        create function stamp() returns trigger language plpgsql as 'begin return new; end';
        create trigger stamp before insert on notes for each row execute function stamp();
        create index on notes (said);";
    let fixture = Fixture::two_clusters(&schema(stamp), &manifest(""));
    execute(&fixture.source, "delete from lines");
    fixture.copied();
    for (change, named) in CHANGES {
        execute(&fixture.source, change);
        fixture.refused(&["cutover", OWNER], named);
        fixture.refused(&["verify", OWNER], named);
        execute(&fixture.target, change);
    }
    execute(&fixture.source, "drop trigger stamp on notes");
    fixture.refused(&["cutover", OWNER], "trigger stamp on public.notes is gone");
    execute(&fixture.target, "drop trigger stamp on notes");
    // These are named, and nothing waits for them.
    execute(
        &fixture.source,
        "create index late on notes (tenant); comment on table notes is 'late'; create statistics st on id, said from notes",
    );
    let said = fixture.done(&["verify", OWNER]);
    for note in ["index public.late is now: ", "comment on table public.notes is now: late", "statistics object public.st"] {
        assert!(said.contains(&format!("note: source: {note}")), "{note}: {said}");
    }
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "drop policy late on notes");
    fixture.refused(&["rollback", OWNER], "policy late on public.notes is gone");
    execute(&fixture.source, "drop policy late on notes");
    fixture.done(&["rollback", OWNER]);
    assert_eq!(try_execute(&fixture.source, "insert into lines values (1, 1)"), Ok(()));
}

/// Functions that are called for each row. Each leaves something to the search path, but for the last.
const WITH_PATHS: &str = "
    create schema tools;
    create function tools.least_length() returns integer language sql immutable as 'select 2';
    create function is_long(t text) returns boolean language plpgsql immutable as
        'begin return length(t) >= least_length(); end';
    create function to_upper(t text) returns text language sql immutable as 'select upper(t)';
    create function upper_of(t text) returns text language sql immutable as 'select to_upper(t)';
    create function folded(t text) returns text language sql immutable as 'select public.upper_of(t)';
    create function kept(t text) returns text language plpgsql immutable set search_path = tools as
        'begin return left(t, least_length()); end';
    set search_path = public, tools;
    alter table notes add column loud text generated always as (folded(said)) stored;
    alter table notes add constraint long_enough check (is_long(said));
    alter table notes add column short text generated always as (kept(said)) stored;
    grant usage on schema tools to shop_svc;
";

#[test]
fn a_function_that_applying_would_call_without_its_search_path_is_named_with_the_statement() {
    let fixture = Fixture::two_clusters(&schema(WITH_PATHS), &manifest(""));
    let said = fixture.refused(&["plan", OWNER], "error: paths: function public.is_long(pg_catalog.text): table constraint");
    assert!(said.contains("`alter function public.is_long(pg_catalog.text) set search_path = \"tools\"`"), "{said}");
    assert!(
        said.contains("paths: function public.folded(pg_catalog.text): default value")
            && !said.contains("paths: function public.kept"),
        "{said}"
    );
    execute(
        &fixture.source,
        "alter function is_long(text) set search_path = tools; alter function to_upper(text) set search_path = public;
         alter function folded(text) set search_path = public",
    );
    fixture.copied();
    execute(&fixture.source, "insert into notes values (3, 'three'); update notes set said = 'ONE' where id = 1");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}
