//! What hangs on the tables, and what they need, comes along as it is, or the plan names it.

use super::fixture::{Fixture, OWNER, cluster, cluster_with, execute, strings, try_execute};

fn manifest(more: &str) -> String {
    format!(
        r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["notes", "lines"]
        target = "$TARGET_URL"
        {more}
        [owners.other]
        role = "other_svc"
        tables = ["members"]
        "#
    )
}

/// Two tables that move, one that stays, and what the test adds.
fn schema(more: &str) -> String {
    format!(
        "create table notes (id integer primary key, said text, tenant integer);
         create table lines (id integer primary key, note_id integer references notes);
         create table members (id integer primary key);
         insert into notes values (1, 'one', 1), (2, 'two', 2);
         insert into lines values (1, 1);
         insert into members values (1);
         grant select, insert, update, delete on notes, lines to shop_svc;
         grant all on members to other_svc;
         {more}"
    )
}

/// A role of few rights that owns functions and views.
fn with_small_role(fixture: &Fixture) {
    for cluster in &fixture.clusters {
        execute(&cluster.url("postgres"), "create role small nologin; create role nobody_svc login");
    }
}

fn moved(fixture: &Fixture) {
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
}

/// Everything that the move created on the target is gone again.
fn back(fixture: &Fixture) {
    let made = "select coalesce(to_regclass('notes')::text, to_regtype('shade')::text, to_regproc('stamp')::text,
        to_regclass('numbers')::text, 'none')";
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
    assert_eq!(strings(&fixture.target, made), ["none"]);
}

const DEFINERS: &str = "
    create function stamp() returns trigger language plpgsql security definer set search_path = pg_catalog as
        'begin new.said := current_user; return new; end';
    revoke execute on function stamp() from public;
    create function secret() returns integer language sql security definer as 'select 42';
    revoke execute on function secret() from public;
    grant execute on function secret() to shop_svc;
    alter table notes add column n integer default secret();
    create trigger stamp before insert on notes for each row execute function stamp();
    create view short with (security_barrier) as select id from notes;
    create function open_to_all() returns integer language sql as 'select 1';
    alter table notes add column o integer default open_to_all();
    create function counts() returns table (id integer, said text, n bigint) language sql
        begin atomic select n.id, n.said, count(*) from notes n group by n.id; end;
    revoke execute on function counts() from public;
";

#[test]
fn functions_and_views_keep_their_owner_and_who_may_use_them() {
    let fixture = Fixture::two_clusters(&schema(DEFINERS), &manifest(r#"views = ["short"]"#));
    with_small_role(&fixture);
    execute(
        &fixture.source,
        "alter function stamp() owner to small; alter function secret() owner to small;
         grant select on notes to small; alter view short owner to small; alter table lines owner to small",
    );
    // What the operator makes on the target would be open to others there, and closed to the application.
    execute(
        &fixture.target,
        "alter default privileges revoke execute on routines from public;
         alter default privileges grant execute on routines to nobody_svc;
         alter default privileges grant execute on routines to shop_svc with grant option;
         alter default privileges grant all on tables to nobody_svc",
    );
    moved(&fixture);
    execute(&fixture.target, "set role shop_svc; insert into notes (id) values (7)");
    assert_eq!(strings(&fixture.target, "select said || n from notes where id = 7"), ["small42"]);
    let owners = "select pg_get_userbyid(relowner)::text || coalesce(reloptions::text, '') from pg_class
        where relname in ('short', 'lines', 'notes') order by relname";
    assert_eq!(strings(&fixture.target, owners), strings(&fixture.source, owners));
    for function in ["stamp()", "secret()", "counts()"] {
        let may = format!("select has_function_privilege('nobody_svc', '{function}', 'execute')::text");
        assert_eq!(strings(&fixture.target, &may), ["false"], "{function}");
    }
    let may = "select has_function_privilege('shop_svc', 'secret()', 'execute with grant option')::text";
    assert_eq!(strings(&fixture.target, may), ["false"]);
    let may = "select concat_ws(', ', relname, has_table_privilege('nobody_svc', oid, 'select'))
        from pg_class where relname in ('short', 'lines', 'notes') order by relname";
    assert_eq!(strings(&fixture.target, may), ["lines, f", "notes, f", "short, f"]);
    back(&fixture);
}

#[test]
fn a_role_that_the_target_lacks_is_named_and_the_manifest_can_name_another_one() {
    let fixture = Fixture::two_clusters(&schema(DEFINERS), &manifest(r#"views = ["short"]"#));
    let source = fixture.clusters[0].url("postgres");
    execute(&source, "create role small nologin");
    execute(&fixture.clusters[1].url("postgres"), "create role smaller nologin");
    execute(&fixture.source, "alter function stamp() owner to small");
    fixture.refused(&["plan", OWNER], "error: roles: small: the role owns function public.stamp()");
    fixture.refused(&["copy", OWNER], "small");
    let mapped = manifest("views = [\"short\"]\nowned_by = { small = \"smaller\" }");
    std::fs::write(fixture.folder.path().join("split.toml"), mapped).expect("written");
    moved(&fixture);
    let owner = "select proowner::regrole::text from pg_proc where proname = 'stamp'";
    assert_eq!(strings(&fixture.target, owner), ["smaller"]);
    back(&fixture);
}

const POLICIES: &str = "
    create schema priv;
    grant usage on schema priv to shop_svc;
    create function priv.tenant() returns integer language sql stable as
        $$ select nullif(current_setting('app.tenant', true), '')::integer $$;
    alter table notes enable row level security;
    create function priv.sees(n notes) returns boolean language sql stable as 'select n.tenant = priv.tenant()';
    create policy own_rows on notes to shop_svc using (priv.sees(notes));
    comment on policy own_rows on notes is 'each tenant sees its own';
";

#[test]
fn row_policies_come_along_with_what_they_call() {
    let fixture = Fixture::two_clusters(&schema(POLICIES), &manifest(""));
    moved(&fixture);
    let seen = "set role shop_svc; set app.tenant = 1;
        do $$ begin if (select count(*) from public.notes) <> 1 then raise 'rows'; end if; end $$";
    execute(&fixture.target, seen);
    let comment = "select count(*)::text from pg_description where description = 'each tenant sees its own'";
    assert_eq!(strings(&fixture.target, comment), ["1"]);
    back(&fixture);
    assert_eq!(strings(&fixture.target, "select coalesce(to_regnamespace('priv')::text, 'none')"), ["none"]);
}

#[test]
fn a_policy_that_reads_what_stays_is_refused_and_may_be_left_behind_unless_it_restricts() {
    let policies = "
        alter table notes enable row level security;
        create policy all_rows on notes using (true);
        create policy members_only on notes using (exists (select from members m where m.id = tenant));
        create policy never_more on lines as restrictive using (exists (select from members m where m.id = lines.id));";
    let fixture = Fixture::one_cluster(&schema(policies), &manifest(""));
    let said =
        fixture.refused(&["plan", OWNER], "error: along: policy members_only on public.notes: it uses public.members");
    assert!(said.contains("error: along: policy never_more on public.lines: it uses public.members"), "{said}");
    execute(&fixture.source, "drop policy never_more on lines");
    let left = manifest(r#"leave = ["policy members_only on public.notes"]"#);
    std::fs::write(fixture.folder.path().join("split.toml"), left).expect("written");
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    assert_eq!(strings(&fixture.target, "select policyname::text from pg_policies"), ["all_rows"]);
    fixture.done(&["abort", OWNER]);
    let unknown = manifest(r#"leave = ["policy nowhere on public.notes"]"#);
    std::fs::write(fixture.folder.path().join("split.toml"), unknown).expect("written");
    fixture.refused(&["plan", OWNER], "error: along: policy nowhere on public.notes: `leave` names it");
}

#[test]
fn a_target_table_without_the_row_security_of_the_source_is_refused() {
    let fixture = Fixture::two_clusters(&schema(POLICIES), &manifest(""));
    execute(
        &fixture.target,
        "create table notes (id integer primary key, said text, tenant integer);
         create table lines (id integer primary key, note_id integer)",
    );
    fixture.refused(&["plan", OWNER], "error: row security:");
    fixture.refused(&["copy", OWNER], "own_rows");
}

const PARTS: &str = r"
    alter table notes add constraint short check (length(said) < 3) not valid;
    alter table notes add column line_end text not null default E'a\r\nb';
    create function nothing() returns trigger language plpgsql as E'begin\r\n return new; end';
    create trigger watched before insert on lines for each row execute function nothing();
    create statistics related on said, tenant from notes;
    create rule quiet as on delete to lines do also nothing;
    create materialized view totals as select count(*) as n from notes;
    create view shown as select n from totals;
    create materialized view doubled as select n * 2 as n from shown;
    create unique index on totals (n);
    grant select on totals to shop_svc;
    comment on constraint lines_note_id_fkey on lines is 'goes along';
    comment on trigger watched on lines is 'goes along';
    comment on statistics related is 'goes along';
    comment on materialized view totals is 'goes along';
    comment on index totals_n_idx is 'goes along';
    comment on constraint short on notes is 'goes along';
";

#[test]
fn what_hangs_on_the_tables_arrives_as_it_is() {
    let fixture = Fixture::two_clusters(&schema(PARTS), &manifest(r#"views = ["doubled", "totals", "shown"]"#));
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    execute(&fixture.source, "insert into notes values (3, 'x', 1)");
    fixture.done(&["cutover", OWNER]);
    let comments = "select count(*)::text from pg_description where description = 'goes along'";
    assert_eq!(strings(&fixture.target, comments), ["6"]);
    assert_eq!(strings(&fixture.target, "select convalidated::text from pg_constraint where conname = 'short'"), ["false"]);
    assert_eq!(try_execute(&fixture.target, "insert into notes values (9, 'too long')"), Err("23514".to_owned()));
    assert_eq!(
        strings(&fixture.target, "select (said || line_end = E'onea\\r\\nb')::text from notes where id = 1"),
        ["true"]
    );
    assert_eq!(
        strings(&fixture.target, "select (prosrc ~ E'\\r\\n')::text from pg_proc where proname = 'nothing'"),
        ["true"]
    );
    assert_eq!(strings(&fixture.target, "select n::text from doubled"), ["6"]);
    execute(&fixture.target, "set role shop_svc; select n from totals");
    let others = "select stxname::text from pg_statistic_ext
         union all select rulename::text from pg_rules where schemaname = 'public'";
    assert_eq!(strings(&fixture.target, others), ["related", "quiet"]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["complete", OWNER]);
    assert_eq!(strings(&fixture.source, "select coalesce(to_regclass('totals')::text, 'gone')"), ["gone"]);
}

const BODIES: &str = r#"
    create type shade as enum ('light', 'dark');
    create cast (varchar as shade) with inout as implicit;
    alter table lines add column shade shade;
    create schema "Odd tools";
    grant usage on schema "Odd tools" to shop_svc;
    create function "Odd tools"."Upper"(t text) returns text language sql immutable as 'select upper(t)';
    create function shout(t text) returns text language plpgsql as $$ begin return "Odd tools"."Upper"(t); end $$;
    create operator "Odd tools".=>> (leftarg = text, rightarg = text, function = textcat);
    create text search configuration plain (copy = simple);
    create sequence numbers start 1000;
    grant usage on sequence numbers to shop_svc;
    create function stamp() returns trigger language plpgsql as $$
        -- members are not used
        begin
            new.said := shout(new.said) operator("Odd tools".=>>) nextval('public.numbers')::text;
            perform to_tsvector('plain', new.said);
            return new;
        end $$;
    create trigger stamp before insert on notes for each row execute function stamp();
    create function count_notes() returns bigint language sql as 'select count(*) from notes';
    create function first_note(n notes) returns text language sql as 'select n.said';
    create function count_members() returns bigint language sql as 'select count(*) from members';
"#;

#[test]
fn what_only_bodies_and_statements_use_comes_along() {
    let fixture = Fixture::two_clusters(&schema(BODIES), &manifest(""));
    moved(&fixture);
    execute(
        &fixture.target,
        "set role shop_svc;
         insert into notes values (7, 'new');
         prepare p (integer, varchar) as insert into lines (id, shade) values ($1, $2);
         execute p (7, 'dark')",
    );
    let said = strings(&fixture.target, "select said from notes where id = 7").concat();
    assert!(said.strip_prefix("NEW").and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 1000), "{said}");
    assert_eq!(strings(&fixture.target, "select count_notes()::text || first_note(n) from notes n where id = 1"), ["3one"]);
    assert_eq!(strings(&fixture.target, "select coalesce(to_regproc('count_members')::text, 'stays')"), ["stays"]);
    back(&fixture);
    assert_eq!(strings(&fixture.target, "select count(*)::text from pg_cast where oid >= 16384"), ["0"]);
}

#[test]
fn a_sequence_that_others_use_too_is_refused_and_a_body_that_hides_what_it_uses_is_named() {
    let shared = "
        create sequence numbers;
        create function stamp() returns trigger language plpgsql as $$
            begin execute 'select ' || new.said; new.tenant := nextval('numbers'); return new; end $$;
        create trigger stamp before insert on notes for each row execute function stamp();
        create function number_members() returns bigint language sql
            as $$ select nextval('numbers') + count(*) from members $$;";
    let fixture = Fixture::one_cluster(&schema(shared), &manifest(""));
    let said = fixture.refused(&["plan", OWNER], "sequence public.numbers: it uses function public.number_members()");
    assert!(said.contains("warning: along: public.stamp(): it executes a text that it builds"), "{said}");
}

#[test]
fn settings_and_rights_that_the_target_lacks_are_named_with_the_statement() {
    let settings = "
        do $$ begin
            execute format('alter database %I set search_path = shop, public', current_database());
            execute format('alter role shop_svc in database %I set statement_timeout = %L', current_database(), '7s');
        end $$;";
    let fixture = Fixture::two_clusters(&schema(settings), &manifest(""));
    execute(&fixture.target, "alter database after set timezone = 'Asia/Tokyo'");
    execute(&fixture.source, "grant create on schema public to public");
    let said = fixture.done(&["plan", OWNER]);
    for finding in [
        "run `grant create on schema \"public\" to \"shop_svc\"` there if the application does",
        "run `alter database \"after\" set search_path = shop, public` there",
        "run `alter role \"shop_svc\" in database \"after\" set statement_timeout = '7s'` there",
        "`alter database \"after\" reset TimeZone` there",
    ] {
        assert!(said.contains(finding), "{finding}: {said}");
    }
    for (undo, lack, finding) in [
        ("alter role shop_svc login", "alter role shop_svc nologin", "it cannot log in there"),
        (
            "grant connect on database after to public",
            "revoke connect on database after from public",
            "it may not connect to the database there",
        ),
        ("alter role shop_svc nobypassrls", "alter role shop_svc bypassrls", "row security does not hold for it there"),
    ] {
        execute(&fixture.target, lack);
        fixture.refused(&["plan", OWNER], finding);
        execute(&fixture.target, undo);
    }
    fixture.done(&["plan", OWNER]);
}

/// Checks over other tables, on a table whose name comes first, on its partitions, on children of several parents, and on a
/// whole row.
const CHECKS_OVER_OTHERS: &str = "
    create function has_note(integer) returns boolean language sql
        as $$ select exists (select from public.notes where id = $1) $$;
    create table answers (id integer not null, note integer) partition by range (id);
    create table answers_1 partition of answers for values from (0) to (10);
    create table parents (note integer);
    create table \"their constraint\" (note integer, constraint noted check (has_note(note)));
    create table children (more integer, constraint noted check (has_note(note))) inherits (parents, \"their constraint\");
    create table grandchildren (constraint noted check (has_note(note))) inherits (children);
    create function has_notes(parents) returns boolean language sql as $$ select public.has_note($1.note) $$;
    insert into answers values (1, 1), (2, 2);
    insert into children values (2, 2);
    alter table answers add constraint noted check (has_note(note));
    alter table answers_1 add constraint also_noted check (has_note(note));
    alter table parents add constraint noted check (has_note(note));
    alter table parents add constraint all_noted check (has_notes(parents)) no inherit;
    insert into parents values (1);
    comment on constraint noted on answers is 'over others';
    grant select, insert, update, delete on answers, parents, children, grandchildren, \"their constraint\" to shop_svc;
";

#[test]
fn checks_over_other_tables_are_created_when_all_rows_are_there() {
    let tables = manifest("").replace(
        r#""notes", "lines""#,
        r#""answers", "children", "grandchildren", "lines", "notes", "parents", 'public."their constraint"'"#,
    );
    let fixture = Fixture::two_clusters(&schema(CHECKS_OVER_OTHERS), &tables);
    let checks = "select format('%s %s: %s, %s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid),
            convalidated, conislocal, coninhcount, obj_description(oid, 'pg_constraint'))
        from pg_constraint where conname like '%noted' order by 1";
    let before = strings(&fixture.source, checks);
    assert_eq!(before.len(), 8, "{before:#?}");
    // Postgres calls it valid, and not all rows pass it.
    execute(&fixture.source, "insert into notes values (7, 'seven')");
    execute(&fixture.source, "insert into answers values (7, 7); delete from notes where id = 7");
    fixture.copied();
    assert_eq!(strings(&fixture.target, checks), before);
    // Other definitions of the target may change.
    execute(&fixture.target, "create table elsewhere (id integer)");
    fixture.done(&["cutover", OWNER]);
    let refused = try_execute(&fixture.target, "set role shop_svc; insert into answers values (3, 9)");
    assert_eq!(refused, Err("23514".to_owned()));
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn settings_of_the_servers_are_compared_where_neither_role_nor_database_has_its_own() {
    let target = cluster_with(&["timezone=Asia/Tokyo", "bytea_output=escape", "statement_timeout=7s"]).expect("a cluster");
    let fixture = Fixture::new(vec![cluster(), target], &schema(""), &manifest(""));
    let zone = strings(&fixture.source, "select setting from pg_file_settings where name = 'timezone'").concat();
    let alter = |name: &str, value: &str| format!("alter database \"after\" set {name} = '{value}'");
    let expected = [alter("timezone", &zone), alter("bytea_output", "hex"), alter("statement_timeout", "0")];
    let said = fixture.done(&["plan", OWNER]);
    for statement in &expected {
        assert!(said.contains(statement), "{statement}: {said}");
        execute(&fixture.target, statement);
    }
    let said = fixture.done(&["plan", OWNER]);
    assert!(!said.contains("settings:"), "{said}");
}

#[test]
fn the_replica_identity_is_put_back_as_it_was_on_both_sides() {
    let keyless = "
        create table readings (meter integer, value integer);
        create table alarms (meter integer);
        alter table readings replica identity full;
        insert into readings values (1, 1);
        grant all on readings, alarms to shop_svc;
        create publication theirs for table readings;";
    let manifest = manifest("").replace(r#""notes", "lines""#, r#""readings", "alarms""#);
    let fixture = Fixture::two_clusters(&schema(keyless), &manifest);
    let identities = "select relname || ' ' || relreplident::text from pg_class
        where relname in ('readings', 'alarms') order by 1";
    let before = strings(&fixture.source, identities);
    assert_eq!(before, ["alarms d", "readings f"]);
    fixture.copied();
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, identities), before);
    execute(&fixture.source, "set role shop_svc; update readings set value = 2");
    fixture.copied();
    for step in ["cutover", "verify", "complete"] {
        fixture.done(&[step, OWNER]);
    }
    assert_eq!(strings(&fixture.target, identities), before);
}

/// A family by inheritance: rows of one key in parent and child, and a table that inherits twice.
const FAMILY: &str = "
    create table places (id integer primary key, name text not null);
    create table cities (mayor text) inherits (places);
    alter table cities add primary key (id);
    create table ports (berths integer) inherits (cities, notes);
    insert into places select i, 'place ' || i from generate_series(1, 500) i;
    insert into cities select i, 'city ' || i, 'mayor' from generate_series(400, 900) i;
    insert into ports values (7, 'port', 'mayor', 'said', 1, 3);
    grant select, insert, update, delete on places, cities, ports to shop_svc;
";

#[test]
fn tables_that_inherit_from_each_other_move_and_come_back_together() {
    let family = r#"tables = ["notes", "lines", "places", "cities", "ports"]"#;
    let family = manifest("").replace(r#"tables = ["notes", "lines"]"#, family);
    let fixture = Fixture::two_clusters(&schema(FAMILY), &family);
    let rows = "select concat_ws(' ', tableoid::regclass, p) from places p union all
        select concat_ws(' ', tableoid::regclass, n) from notes n order by 1";
    let before = strings(&fixture.source, rows);
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    // A statement over the parent reaches the children's rows, on either side of the switch.
    execute(&fixture.source, "update places set name = name || '!' where id % 2 = 0; delete from places where id = 450");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    let refused = try_execute(&fixture.source, "set role shop_svc; update places set name = 'late'");
    assert_eq!(refused, Err("42501".to_owned()));
    let changed = strings(&fixture.target, rows);
    assert_eq!(changed.len(), before.len() - 2, "{changed:?}");
    assert_eq!(strings(&fixture.source, rows), changed);
    execute(&fixture.target, "update places set name = trim(name, '!')");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    let kept: Vec<_> = before.into_iter().filter(|row| !row.contains("(450,")).collect();
    assert_eq!(strings(&fixture.source, rows), kept);
    // A difference in a child is the child's, and no other table's.
    execute(
        &fixture.target,
        "set session_replication_role = replica; update only cities set mayor = 'planted' where id = 500",
    );
    let (_, said) = fixture.run(&["verify", OWNER]);
    assert!(said.contains("cities") && said.contains("500") && !said.contains("places"), "{said}");
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}
