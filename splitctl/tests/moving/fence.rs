//! The fence holds for the role that owns the tables, and nobody else suffers from it.

use super::fixture::{Fixture, OWNER, execute, strings, try_execute, until};

const ROLES: &str = "create role clerk; create role auditor; create role bystander;";

/// One role owns and uses a table that moves and a table that stays. It lets another role grant.
const SCHEMA: &str = "
    grant create on schema public to shop_svc;
    set role shop_svc;
    create table moves (id bigserial primary key, x integer, secret text);
    create table stays (id bigserial primary key, x integer);
    create view seen as select id, x from moves;
    insert into moves (x) select i from generate_series(1, 10) i;
    grant select on moves to other_svc with grant option;
    grant select (id), update (x) on moves to auditor;
    set role other_svc;
    grant select on moves to clerk;
";

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["moves"]
    views = ["seen"]
    target = "$TARGET_URL"
    [owners.rest]
    role = "shop_svc"
    tables = ["stays"]
"#;

/// All rights on the tables, their columns and sequences, with who granted them.
const RIGHTS: &str = "
    select format('%s %s', c.relname, array(
        select a::text
        from unnest(coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::\"char\", c.relowner))) a
        order by 1
    ))
    from pg_class c
    where c.relname in ('moves', 'moves_id_seq', 'seen')
    union all
    select format('%s %s', a.attname, a.attacl)
    from pg_attribute a
    where a.attrelid = 'moves'::regclass
      and a.attacl is not null
    order by 1";

const WORK: &str = "
    set role shop_svc;
    insert into moves (x) values (1);
    select count(*) from seen";

fn one_cluster() -> Fixture {
    Fixture::one_cluster(&format!("{ROLES}{SCHEMA}"), MANIFEST)
}

fn two_clusters(manifest: &str) -> Fixture {
    let fixture = Fixture::two_clusters("", manifest);
    execute(&fixture.target, ROLES);
    execute(&fixture.source, &format!("{ROLES}{SCHEMA}"));
    fixture
}

fn denied() -> Result<(), String> {
    Err("42501".to_owned())
}

fn manifest(fixture: &Fixture, text: &str) {
    std::fs::write(fixture.folder.path().join("split.toml"), text).expect("written");
}

fn accepting(entry: &str) -> String {
    MANIFEST.replace(
        "role = \"shop_svc\"\n    tables = [\"moves\"]",
        &format!("role = \"shop_svc\"\n    accept = [\"{entry}\"]\n    tables = [\"moves\"]"),
    )
}

fn is_refused_on(url: &str) {
    for refused in ["insert into moves (x) values (1)", "select count(*) from moves", "select count(*) from seen"] {
        assert_eq!(try_execute(url, &format!("set role shop_svc; {refused}")), denied(), "{refused}");
    }
}

#[test]
fn one_role_that_owns_and_uses_everything_works_where_its_tables_live_and_nowhere_else() {
    let fixture = one_cluster();
    let before = strings(&fixture.source, RIGHTS);
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    is_refused_on(&fixture.target);
    let by_hand = "select has_table_privilege('bystander', 'moves', 'select')::text";
    execute(&fixture.target, "grant select on moves to bystander");
    for round in ["first", "second"] {
        fixture.done(&["cutover", OWNER]);
        execute(&fixture.target, WORK);
        is_refused_on(&fixture.source);
        execute(&fixture.source, "set role shop_svc; insert into stays (x) values (1)");
        assert_eq!(strings(&fixture.target, by_hand), ["true"], "{round}");
        for role in ["clerk", "other_svc"] {
            execute(&fixture.target, &format!("set role {role}; select count(*) from moves"));
            assert_eq!(try_execute(&fixture.source, &format!("set role {role}; select count(*) from moves")), denied());
        }
        assert_eq!(try_execute(&fixture.target, "set role auditor; select secret from moves"), denied());
        fixture.done(&["verify", OWNER]);
        fixture.done(&["rollback", OWNER]);
        execute(&fixture.source, WORK);
        is_refused_on(&fixture.target);
        assert_eq!(strings(&fixture.source, RIGHTS), before, "{round}");
        fixture.done(&["verify", OWNER]);
    }
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, RIGHTS), before);
    fixture.assert_clean();
}

#[test]
fn an_owner_that_grants_itself_the_old_tables_again_is_noticed() {
    let fixture = one_cluster();
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
    let status = fixture.done(&["status", OWNER]);
    assert!(!status.contains("open:") && !status.contains("does not run"), "{status}");
    execute(&fixture.source, "set role shop_svc; grant select on moves to shop_svc");
    let status = fixture.done(&["status", OWNER]);
    assert!(status.contains("open: the role shop_svc has rights on the old tables"), "{status}");
    fixture.done(&["verify", OWNER]);
    let status = fixture.done(&["status", OWNER]);
    assert!(status.contains("next: by hand: revoke the rights on the old tables from shop_svc"), "{status}");
    fixture.refused(&["complete", OWNER], "shop_svc");
    execute(&fixture.source, "set role shop_svc; revoke select on moves from shop_svc");
    fixture.done(&["complete", OWNER]);
    execute(&fixture.target, WORK);
    fixture.assert_clean();
}

#[test]
fn a_role_that_no_switch_can_keep_from_reading_is_an_error_until_the_manifest_accepts_it() {
    let fixture = one_cluster();
    for (grant, revoke, reason) in [
        (
            "grant pg_read_all_data to shop_svc",
            "revoke pg_read_all_data from shop_svc",
            "the role is a member of pg_read_all_data",
        ),
        ("alter role shop_svc superuser", "alter role shop_svc nosuperuser", "the role is a superuser"),
    ] {
        execute(&fixture.source, grant);
        fixture.refused(&["plan", OWNER], &format!("error: roles: shop_svc: {reason}"));
        fixture.refused(&["copy", OWNER], reason);
        manifest(&fixture, &accepting("roles: shop_svc"));
        assert!(fixture.done(&["plan", OWNER]).contains("warning: roles: shop_svc"));
        manifest(&fixture, MANIFEST);
        execute(&fixture.source, revoke);
    }
    fixture.done(&["plan", OWNER]);
}

#[test]
fn functions_of_a_role_that_replication_would_call_are_named_until_the_manifest_accepts_them() {
    let schema = format!(
        "{ROLES}{SCHEMA}
         set role shop_svc;
         create function fits(integer) returns boolean language sql immutable as 'select $1 > -1';
         alter table moves add constraint moves_fit check (fits(x));"
    );
    let fixture = Fixture::one_cluster(&schema, MANIFEST);
    if strings(&fixture.source, "select current_setting('server_version_num')")[0].as_str() >= "160000" {
        // A role of few rights applies the changes, unless it passes row security.
        fixture.done(&["plan", OWNER]);
        execute(&fixture.source, "alter table moves enable row level security");
    }
    let said = fixture.refused(&["plan", OWNER], "error: code: shop_svc");
    assert!(said.contains("public.fits(integer) (for moves_fit)"), "{said}");
    manifest(&fixture, &accepting("code: shop_svc"));
    fixture.done(&["plan", OWNER]);
}

#[test]
fn a_trigger_that_fires_for_replication_moves_once_the_manifest_accepts_it() {
    let schema = format!(
        "{ROLES}{SCHEMA}
         set role shop_svc;
         create function hides() returns trigger language plpgsql as
             'begin new.secret := ''hidden ''||new.x; return new; end';
         create trigger hides before insert or update on moves for each row execute function hides();
         alter table moves enable always trigger hides;"
    );
    let fixture = Fixture::one_cluster(&schema, MANIFEST);
    let said = fixture.refused(&["plan", OWNER], "error: triggers: public.moves: the trigger hides also fires");
    assert!(said.contains(r#"add "triggers: public.moves" to `accept`"#), "{said}");
    let both = r#"triggers: public.moves", "code: shop_svc"#;
    manifest(&fixture, &accepting(both));
    fixture.copied();
    execute(&fixture.source, WORK);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, WORK);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    let hidden = "select count(*)::text from moves where secret = 'hidden 1'";
    assert_eq!(strings(&fixture.source, hidden), ["2"]);
    let fires = "select tgenabled::text from pg_trigger where tgname = 'hides'";
    assert_eq!(strings(&fixture.target, fires), ["A"]);
}

#[test]
fn a_publication_for_all_tables_is_named_before_anything_is_changed() {
    let fixture = one_cluster();
    execute(&fixture.source, "create publication warehouse for all tables");
    fixture.refused(&["plan", OWNER], "error: publications: warehouse: this publication is for all tables");
    fixture.refused(&["copy", OWNER], "warehouse");
    assert_eq!(strings(&fixture.source, "select coalesce(to_regnamespace('splitctl')::text, 'none')"), ["none"]);
    manifest(&fixture, &accepting("publications: warehouse"));
    fixture.done(&["plan", OWNER]);
}

#[test]
fn a_way_back_that_does_not_work_is_named_before_the_switch() {
    let wrong = "target_from_source = \"postgres://postgres@127.0.0.1:9/after\"\n    target = ";
    let fixture = two_clusters(&MANIFEST.replace("target = ", wrong));
    let said = fixture.refused(&["plan", OWNER], "127.0.0.1:9/after");
    assert!(said.contains("target_from_source"), "{said}");
    // It may also stop to work later.
    manifest(&fixture, MANIFEST);
    fixture.copied();
    manifest(&fixture, &MANIFEST.replace("target = ", wrong));
    fixture.refused(&["cutover", OWNER], "127.0.0.1:9/after");
    execute(&fixture.source, WORK);
    let tried = "select count(*)::text from pg_subscription";
    assert_eq!(strings(&fixture.source, tried), ["0"]);
    manifest(&fixture, MANIFEST);
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, WORK);
}

#[test]
fn after_the_commit_a_command_succeeds_and_a_lost_way_back_leaves_a_way_out() {
    let fixture = two_clusters(MANIFEST);
    fixture.copied();
    let said = fixture.done(&["cutover", OWNER, "--after-switch", "false"]);
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with("switched") && first.contains("splitctl cutover shop"), "{said}");
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl cutover shop"));
    execute(&fixture.target, "select pg_drop_replication_slot(slot_name) from pg_replication_slots");
    let said = fixture.done(&["cutover", OWNER]);
    assert!(said.contains("splitctl complete shop --give-up-way-back"), "{said}");
    fixture.refused(&["rollback", OWNER], "splitctl complete shop --give-up-way-back");
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl complete shop --give-up-way-back"));
    fixture.done(&["complete", OWNER, "--give-up-way-back"]);
    execute(&fixture.target, WORK);
    fixture.assert_clean();
}

#[test]
fn an_autovacuum_worker_ends_before_writers_wait() {
    let schema = "
        create table moves (id integer primary key, n integer, t text) with (
            autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = -1,
            autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_analyze_threshold = 1000000
        );
        insert into moves select i, i, repeat('x', 200) from generate_series(1, 40000) i;
        grant all on moves to shop_svc;
        create table stays (id integer primary key);";
    let fixture = Fixture::one_cluster(schema, &MANIFEST.replace("views = [\"seen\"]", ""));
    fixture.copied();
    execute(&fixture.source, "alter system set autovacuum_naptime = '1s'");
    execute(&fixture.source, "select pg_reload_conf(); update moves set n = n + 1");
    let worker = "select pid::text from pg_stat_activity
        where backend_type = 'autovacuum worker' and query like 'autovacuum: VACUUM public.moves%'";
    until("a worker vacuums the table", || !strings(&fixture.source, worker).is_empty());
    fixture.done(&["cutover", OWNER]);
    fixture.done(&["verify", OWNER]);
}

#[test]
fn a_worker_against_wraparound_is_reported_and_goes_on() {
    let schema = "
        create table moves (id integer primary key, n integer, t text) with (
            autovacuum_freeze_max_age = 100000, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1
        );
        insert into moves select i, i, repeat('x', 200) from generate_series(1, 40000) i;
        grant all on moves to shop_svc;
        create table stays (id integer primary key);";
    let fixture = Fixture::one_cluster(schema, &MANIFEST.replace("views = [\"seen\"]", ""));
    fixture.copied();
    execute(&fixture.source, "alter system set autovacuum_naptime = '1s'");
    let ages = "do $$ begin for i in 1..110000 loop perform pg_current_xact_id(); commit; end loop; end $$";
    execute(&fixture.source, ages);
    execute(&fixture.source, "select pg_reload_conf()");
    // The target has such a table, too.
    let worker = "select pid::text from pg_stat_activity where backend_type = 'autovacuum worker'
        and query like 'autovacuum: VACUUM%public.moves (to prevent wraparound)' and datname = current_database()";
    until("a worker prevents wraparound", || !strings(&fixture.source, worker).is_empty());
    let at_work = strings(&fixture.source, worker);
    fixture.refused(&["cutover", OWNER], "vacuums it to prevent wraparound");
    assert_eq!(strings(&fixture.source, worker), at_work);
    execute(&fixture.source, "set role shop_svc; update moves set n = 0 where id = 1");
    fixture.done(&["status", OWNER]);
}

#[test]
fn the_guard_refuses_what_breaks_the_stream_and_nothing_else() {
    let schema = "
        create type mood as enum ('a', 'b');
        create type pair as (mood mood, at date);
        create domain small as integer check (value < 100);
        create table moves (id integer primary key, x small not null, pair pair);
        create table parts (id integer primary key) partition by range (id);
        create table parts_1 partition of parts for values from (0) to (10);
        create table parts_2 partition of parts for values from (10) to (20);
        create table stays (id integer primary key);
        grant create on schema public to other_svc;
        alter table stays owner to other_svc;
        grant all on moves, parts to shop_svc;";
    let tables = MANIFEST.replace("views = [\"seen\"]", "").replace("[\"moves\"]", "[\"moves\", \"parts\"]");
    let fixture = Fixture::one_cluster(schema, &tables);
    fixture.copied();
    for harmless in [
        "set role other_svc; create temp table t (id integer)",
        "set role other_svc; create table own (id integer); alter table own add x integer; drop table own",
        "set role other_svc; alter table stays add x integer",
        "create index on stays (id)",
        "create index on moves (x)",
        "alter table moves set (autovacuum_vacuum_scale_factor = 0.01)",
        "alter table moves alter x set statistics 500",
        "comment on table moves is 'goes to the other server'",
        "create statistics s on id, x from moves",
        "reindex table moves",
        "create type other_mood as enum ('a'); alter type other_mood add value 'b'",
    ] {
        assert_eq!(try_execute(&fixture.source, harmless), Ok(()), "{harmless}");
    }
    for url in [&fixture.source, &fixture.target] {
        for harmful in [
            "alter type mood add value 'c'",
            "alter type mood rename value 'a' to 'z'",
            "alter type pair add attribute more integer",
            "alter domain small drop constraint small_check",
            "drop table parts_2",
            "alter table parts detach partition parts_2",
            "create table parts_3 partition of parts for values from (20) to (30)",
            "alter table moves drop constraint moves_pkey",
            "alter table moves replica identity nothing",
            "alter table moves set unlogged",
            "drop table moves",
        ] {
            assert_eq!(try_execute(url, harmful), Err("55000".to_owned()), "{harmful}");
        }
    }
    execute(&fixture.source, "insert into moves values (1, 1, row('a', '2026-01-01'))");
    until("the stream goes on", || strings(&fixture.target, "select count(*)::text from moves") == ["1"]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["abort", OWNER]);
    execute(&fixture.source, "alter type mood add value 'c'; drop table parts_2; alter table moves add z integer");
    fixture.assert_clean();
}

#[test]
fn settings_and_event_triggers_of_others_do_not_act_on_its_sessions() {
    let fixture = one_cluster();
    execute(
        &fixture.source,
        "create table ddl_log (tag text);
         grant insert on ddl_log to public;
         create function log_ddl() returns event_trigger language plpgsql as
             'begin insert into ddl_log values (tg_tag); end';
         create event trigger log_ddl on ddl_command_end execute function log_ddl();",
    );
    execute(
        &fixture.source,
        "alter database before set idle_session_timeout = '1s';
         alter database before set quote_all_identifiers = on;
         alter database before set default_transaction_deferrable = on;
         alter database before set search_path = odd;
         alter role postgres set default_transaction_isolation = serializable",
    );
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    let second =
        "sleep 2; ! splitctl_of_the_test verify shop".replace("splitctl_of_the_test", env!("CARGO_BIN_EXE_splitctl"));
    fixture.done(&["cutover", OWNER, "--before-switch", &second]);
    for step in ["verify", "rollback", "verify", "abort"] {
        fixture.done(&[step, OWNER]);
    }
    execute(&fixture.source, "set search_path = public; alter event trigger log_ddl enable always");
    fixture.refused(&["plan", OWNER], "error: event triggers: log_ddl");
}

#[test]
fn without_a_superuser_the_fence_holds_for_an_owner_that_splitctl_is_a_member_of() {
    let wanted = MANIFEST.replace("target = ", "target_from_source = \"$TARGET_URL\"\n    target = ");
    let mut fixture = Fixture::two_clusters("", &wanted);
    let version: u32 =
        strings(&fixture.source, "select current_setting('server_version_num')")[0].parse().expect("a number");
    if version < 160_000 {
        // Only a superuser can create a subscription.
        return;
    }
    for (cluster, database) in fixture.clusters.iter().zip(["before", "after"]) {
        let admin = format!(
            "create role admin login replication password '{}';
             grant pg_create_subscription, shop_svc, other_svc to admin;
             alter database {database} owner to admin;",
            cluster.password()
        );
        execute(&cluster.url("postgres"), &format!("{admin}{ROLES}"));
        execute(&cluster.url(database), "grant create on schema public to shop_svc");
    }
    execute(&fixture.source, SCHEMA);
    let superuser = (fixture.source.clone(), fixture.target.clone());
    fixture.source = fixture.clusters[0].url_as("admin", "before");
    fixture.target = fixture.clusters[1].url_as("admin", "after");
    fixture.copied();
    for _ in 0..2 {
        fixture.done(&["cutover", OWNER]);
        execute(&superuser.1, WORK);
        is_refused_on(&superuser.0);
        fixture.done(&["verify", OWNER]);
        fixture.done(&["rollback", OWNER]);
        execute(&superuser.0, WORK);
        is_refused_on(&superuser.1);
        fixture.done(&["verify", OWNER]);
    }
    fixture.done(&["abort", OWNER]);
}
