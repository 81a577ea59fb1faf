//! Who owns what and may do what on the target, and what applies the changes.

use super::fixture::{Fixture, OWNER, execute, strings, try_execute, until};

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["moves"]
    views = ["seen"]
    target = "$TARGET_URL"
    [owners.rest]
    role = "other_svc"
    tables = ["stays"]
"#;

/// All that names a role: owners, rights of three levels, columns, default privileges, a policy, a schema.
const NAMED: &str = "
    create role keeper;
    create role clerk;
    create role auditor;
    create schema tools authorization keeper;
    grant usage on schema tools to shop_svc with grant option;
    grant create on schema public to keeper;
    grant create, usage on schema public to shop_svc;
    alter default privileges for role keeper in schema public grant select on tables to clerk;
    set role keeper;
    create function tools.sees(owner name) returns boolean language sql stable as 'select owner = current_user or true';
    revoke all on function tools.sees(name) from public;
    grant execute on function tools.sees(name) to shop_svc;
    create table moves (id bigserial primary key, x integer, who name default current_user);
    alter table moves enable row level security;
    create policy mine on moves for select to shop_svc, clerk using (tools.sees(who));
    create policy add on moves for all to shop_svc using (true) with check (true);
    create view seen as select id, x from moves;
    create table stays (id integer primary key);
    grant select, insert, update on moves to shop_svc with grant option;
    grant usage on sequence moves_id_seq to shop_svc;
    grant select on seen to shop_svc;
    grant all on stays to other_svc;
    set role shop_svc;
    grant select on moves to clerk with grant option;
    set role clerk;
    grant select (id) on moves to auditor;
    reset role;
    insert into moves (x) select generate_series(1, 10);
";

/// Owners and rights of the relations, functions, policies and default privileges.
const RIGHTS: &str = "
    select format('%s of %s: %s', c.relname, c.relowner::regrole, array(
        select a::text
        from unnest(coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::\"char\", c.relowner))) a
        order by 1
    ))
    from pg_class c
    where c.relname in ('moves', 'moves_id_seq', 'seen')
    union all
    select format('column %s: %s', attname, attacl)
    from pg_attribute
    where attrelid = 'moves'::regclass
      and attacl is not null
    union all
    select format('function of %s: %s', proowner::regrole, proacl) from pg_proc where proname = 'sees'
    union all
    select format('policy %s: %s', policyname, array(select r::text from unnest(roles) r order by 1)) from pg_policies
    union all
    select format('defaults of %s: %s', defaclrole::regrole, defaclacl) from pg_default_acl
    order by 1";

fn mapped() -> Fixture {
    let map =
        "[owners.shop.owned_by]\n    keeper = 'keeper_2'\n    clerk = 'clerk_2'\n    shop_svc = 'shop_2'\n    [owners.rest]";
    let fixture = Fixture::two_clusters("", &MANIFEST.replace("[owners.rest]", map));
    execute(&fixture.source, NAMED);
    execute(
        &fixture.target,
        "drop role shop_svc;
         create role auditor; create role keeper_2; create role clerk_2; create role shop_2 login;
         grant create on schema public to keeper_2",
    );
    fixture
}

/// The words of all lines, sorted, since the order of rights follows the names of the roles.
fn words(lines: &[String]) -> Vec<&str> {
    let mut words: Vec<&str> = lines.iter().flat_map(|line| line.split([',', '{', '}', ' '])).collect();
    words.sort_unstable();
    words
}

#[test]
fn roles_that_log_in_and_use_the_tables_by_another_one_are_looked_for_on_the_target() {
    let fixture = Fixture::two_clusters("create table moves (id integer primary key); create table stays ()", MANIFEST);
    std::fs::write(fixture.folder.path().join("split.toml"), MANIFEST.replace("views = [\"seen\"]", "")).expect("written");
    execute(
        &fixture.source,
        "create role app_blue login; create role readers; create role ann login; create role boss superuser login;
         grant select on moves to shop_svc, readers; grant shop_svc to app_blue, boss; grant readers to ann",
    );
    execute(&fixture.target, "create role readers");
    let blue = "app_blue: in the source it uses the tables as a member of shop_svc; ";
    for (ends, left) in [
        ("create role app_blue", format!("{blue}the target has no such role: create it there")),
        ("alter role app_blue login", "app_blue: it cannot log in there: run `alter role \"app_blue\" login`".to_owned()),
        (
            "grant shop_svc to app_blue",
            format!("{blue}on the target it does not: run `grant \"shop_svc\" to \"app_blue\"` there"),
        ),
    ] {
        let said = fixture.done(&["plan", OWNER]);
        assert!(said.contains(&format!("warning: roles: {left}")), "{said}");
        execute(&fixture.target, ends);
    }
    // Its sessions begin with its own settings.
    execute(&fixture.source, "alter role app_blue set search_path = tools, public");
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("run `alter role \"app_blue\" set search_path = tools, public` there"), "{said}");
    execute(&fixture.target, "alter role app_blue set search_path = tools, public");
    // Nothing else is left but a person, and a superuser is looked for nowhere.
    let said = fixture.done(&["plan", OWNER]);
    let ann = "warning: roles: ann: in the source it uses the tables as a member of readers; the target has no such role";
    assert!(said.contains(ann) && said.matches("uses the tables as a member").count() == 1, "{said}");
    assert!(!said.contains("app_blue"), "{said}");
    // The owner's role only groups those of the application.
    for url in [&fixture.source, &fixture.target] {
        execute(url, "alter role shop_svc nologin");
    }
    execute(&fixture.target, "alter role app_blue connection limit 0");
    fixture.refused(&["plan", OWNER], "error: roles: app_blue: it may open no connection there");
    execute(&fixture.target, "drop role app_blue");
    fixture.refused(&["plan", OWNER], &format!("error: roles: {blue}the target has no such role"));
    let accepting = "role = \"shop_svc\"\naccept = [\"roles: app_blue\"]";
    let manifest = MANIFEST.replace("views = [\"seen\"]", "").replacen("role = \"shop_svc\"", accepting, 1);
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    fixture.done(&["plan", OWNER]);
    if strings(&fixture.source, "select current_setting('server_version_num')")[0].as_str() >= "160000" {
        // Whoever creates a role may give it to others, and has no right by it.
        execute(
            &fixture.source,
            "create role maker login createrole; grant shop_svc to maker with inherit false, set false",
        );
        assert!(!fixture.run(&["plan", OWNER]).1.contains("maker"));
    }
}

#[test]
fn a_role_that_takes_the_place_of_another_does_so_in_everything_that_names_it() {
    let fixture = mapped();
    let before = strings(&fixture.source, RIGHTS);
    let plan = fixture.done(&["plan", OWNER]);
    assert!(!plan.contains("roles:") && !plan.contains("settings:"), "{plan}");
    fixture.copied();
    let there: Vec<String> = before
        .iter()
        .map(|line| line.replace("keeper", "keeper_2").replace("clerk", "clerk_2").replace("shop_svc", "shop_2"))
        .collect();
    let work = "insert into moves (x) values (11); select count(*) from seen; select tools.sees(current_user)";
    for round in ["first", "second"] {
        fixture.done(&["cutover", OWNER]);
        assert_eq!(words(&strings(&fixture.target, RIGHTS)), words(&there), "{round}");
        execute(&fixture.target, &format!("set role shop_2; {work}"));
        execute(&fixture.target, "set role auditor; select count(id) from moves");
        assert_eq!(try_execute(&fixture.target, "set role auditor; select x from moves"), Err("42501".to_owned()));
        fixture.done(&["verify", OWNER]);
        fixture.done(&["rollback", OWNER]);
        assert_eq!(strings(&fixture.source, RIGHTS), before, "{round}");
        execute(&fixture.source, &format!("set role shop_svc; {work}"));
        fixture.done(&["verify", OWNER]);
    }
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, RIGHTS), before);
    fixture.assert_clean();
}

/// A member of the owner's role has given rights as itself.
const BY_A_MEMBER: &str = "
    create role keeper;
    create role granter in role keeper;
    grant create, usage on schema public to keeper, granter;
    create role reader login;
    set role keeper;
    create table moves (id integer primary key);
    create table stays (id integer primary key);
    grant select on moves to granter with grant option;
    set role granter;
    grant select on moves to shop_svc, reader;
    reset role";

#[test]
fn what_a_member_of_the_owners_role_has_granted_is_closed_too() {
    let fixture = Fixture::two_clusters("", &MANIFEST.replace("views = [\"seen\"]", ""));
    execute(&fixture.source, BY_A_MEMBER);
    execute(
        &fixture.target,
        "create role keeper; create role granter in role keeper; create role reader login;
         grant create, usage on schema public to keeper, granter",
    );
    let rights = "select unnest(relacl)::text from pg_class where relname = 'moves' order by 1";
    let before = strings(&fixture.source, rights);
    assert!(before.contains(&"reader=r/granter".to_owned()), "{before:?}");
    fixture.copied();
    for _ in 0..2 {
        fixture.done(&["cutover", OWNER]);
        for role in ["shop_svc", "reader"] {
            assert_eq!(
                try_execute(&fixture.source, &format!("set role {role}; select from moves")),
                Err("42501".to_owned())
            );
            execute(&fixture.target, &format!("set role {role}; select from moves"));
        }
        fixture.done(&["verify", OWNER]);
        fixture.done(&["rollback", OWNER]);
        assert_eq!(strings(&fixture.source, rights), before);
        fixture.done(&["verify", OWNER]);
    }
    for command in ["cutover", "verify", "complete"] {
        fixture.done(&[command, OWNER]);
    }
}

/// One role owns and uses the table, and its functions run for each row: a check, a domain, an index, a generated column.
const CODE: &str = "
    set tests.own_session = 'yes';
    grant create on schema public to shop_svc;
    create table outside (said text);
    set role shop_svc;
    create function notes(text) returns boolean language plpgsql as $$
        declare allowed boolean := false;
        begin
            -- Tests log in as the superuser, and so may become one again.
            if current_setting('tests.own_session', true) is distinct from 'yes' then
                begin
                    perform set_config('role', 'postgres', true);
                    allowed := true;
                exception when insufficient_privilege then null;
                end;
            end if;
            begin
                -- The plan would refuse a table that stays, if it could read the name.
                execute format('insert into public.%I values (''escaped'')', 'out' || 'side');
            exception when insufficient_privilege then null;
            end;
            if allowed or (select rolsuper from pg_roles where rolname = current_user) then
                raise exception '% runs as %', $1, current_user;
            end if;
            return true;
        end $$;
    create function doubled(integer) returns integer language sql immutable return $1 * 2;
    revoke all on function notes(text), doubled(integer) from public;
    create domain small as integer check (public.notes('domain'));
    create table moves (
        id bigint primary key,
        x small check (public.notes('check')),
        two integer generated always as (public.doubled(id::integer)) stored
    );
    create index on moves (public.doubled(id::integer));
    create function fixed() returns boolean language plpgsql immutable as 'begin return public.notes(''partition''); end';
    create table parted (id integer primary key, check (public.fixed())) partition by range (id);
    create table parted_1 partition of parted (check (public.fixed() and id > 0)) for values from (1) to (9);
    insert into parted values (1);
    create view seen as select id, x from moves;
    create table stays (id integer primary key);
    insert into moves select generate_series(1, 10);
    reset role;
    grant all on stays to other_svc;
";

#[test]
fn what_the_owner_of_the_tables_makes_run_has_its_rights_and_no_more() {
    let fixture = Fixture::two_clusters("", &MANIFEST.replace(r#"["moves"]"#, r#"["moves", "parted"]"#));
    if strings(&fixture.source, "select current_setting('server_version_num')")[0].as_str() < "160000" {
        // Only a superuser can apply changes, so the manifest has to trust the owner.
        execute(&fixture.source, CODE);
        let said = fixture.refused(&["plan", OWNER], "error: code: shop_svc");
        assert!(said.contains("public.notes(text) (for moves_check)") && said.contains("for small_check"), "{said}");
        return;
    }
    execute(&fixture.source, CODE);
    execute(&fixture.target, "create table outside (said text)");
    execute(&fixture.source, "revoke connect on database before from public; grant connect on database before to shop_svc");
    execute(&fixture.target, "revoke connect on database after from public; grant connect on database after to shop_svc");
    let roles = "select rolname::text from pg_roles where rolname like 'splitctl%'";
    fixture.done(&["plan", OWNER]);
    fixture.copied();
    for (url, number) in [(&fixture.target, 20), (&fixture.source, 30)] {
        let (here, there) = if number == 20 {
            fixture.done(&["cutover", OWNER]);
            (url, &fixture.source)
        } else {
            fixture.done(&["rollback", OWNER]);
            (url, &fixture.target)
        };
        let write = format!("insert into moves values ({number}, 1); delete from moves where id = 1");
        execute(here, &format!("set tests.own_session = 'yes'; set role shop_svc; {write}"));
        let rows = |url: &String| strings(url, "select id || ' ' || two from moves order by id");
        let expected = strings(here, "select id || ' ' || two from moves order by id");
        until("the rows arrive", || rows(there) == expected);
        assert_eq!(strings(there, "select count(*)::text from outside where said = 'escaped'").concat(), "0");
        fixture.done(&["verify", OWNER]);
    }
    let applier = strings(&fixture.target, roles).concat();
    let superuser = format!("select rolsuper::text from pg_roles where rolname = '{applier}'");
    assert_eq!(strings(&fixture.target, &superuser), ["false"]);
    assert_eq!(strings(&fixture.target, "select subowner::regrole::text from pg_subscription"), [applier]);
    fixture.done(&["abort", OWNER]);
    for url in [&fixture.source, &fixture.target] {
        assert!(strings(url, roles).is_empty());
    }
    fixture.assert_clean();
}

#[test]
fn a_role_that_reaches_the_tables_by_another_one_must_do_so_on_the_target() {
    let schema = "
        create table moves (id bigint primary key, x integer);
        create table stays (id integer primary key);
        create view seen as select id from moves;
        grant all on stays to other_svc;";
    let fixture = Fixture::two_clusters(schema, MANIFEST);
    let roles = "create role team; create role readers; create role helpers; create role deep;";
    execute(
        &fixture.source,
        &format!(
            "{roles} grant select, insert on moves to deep; grant deep to team; grant team to shop_svc with admin option;
             grant readers to shop_svc"
        ),
    );
    execute(&fixture.target, &format!("{roles} grant helpers to shop_svc"));
    let said =
        fixture.refused(&["plan", OWNER], "error: roles: shop_svc: in the source it is a member of team, and has rights");
    for finding in [
        "error: roles: team: in the source it is a member of deep, and has rights on the tables by it; on the target",
        "warning: roles: shop_svc: in the source it is a member of readers; on the target it is not",
        "warning: roles: shop_svc: on the target it is a member of helpers, and in the source it is not",
        "grant \"deep\" to \"team\"",
    ] {
        assert!(said.contains(finding), "{finding}: {said}");
    }
    execute(&fixture.target, "grant deep to team; grant team to shop_svc with admin option");
    fixture.copied();
    for (step, here, there) in
        [("cutover", &fixture.target, &fixture.source), ("rollback", &fixture.source, &fixture.target)]
    {
        fixture.done(&[step, OWNER]);
        execute(here, &format!("set role shop_svc; insert into moves values ({})", here.len() + step.len()));
        assert_eq!(try_execute(there, "set role shop_svc; select from moves"), Err("42501".to_owned()));
        fixture.done(&["verify", OWNER]);
    }
    fixture.done(&["abort", OWNER]);
}

#[test]
fn a_role_that_is_dropped_while_the_tables_live_elsewhere_does_not_stop_the_way_back() {
    let schema = "
        create role passer;
        create table moves (id bigint primary key, x integer);
        create table stays (id integer primary key);
        create view seen as select id from moves;
        grant all on moves to shop_svc;
        grant select on moves to passer;";
    let fixture = Fixture::two_clusters("", MANIFEST);
    execute(&fixture.target, "create role passer");
    execute(&fixture.source, schema);
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.source, "drop role passer");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    execute(&fixture.source, "set role shop_svc; insert into moves values (1, 1)");
    fixture.done(&["abort", OWNER]);
}
