//! What `detach` drops, and what `attach` and `rollback` bring back.

use super::fixture::{Fixture, OWNER, execute, said, strings, try_execute, until};

/// Every kind of crossing, each with all that hangs on it.
const SCHEMA: &str = r#"
    create schema reports;
    create role reporter;
    grant create, usage on schema reports to reporter;
    create table tenants (id integer primary key, name text not null, parts integer not null default 0);
    create table parts (
        id integer primary key,
        tenant_id integer not null constraint "Belongs to" references tenants on delete cascade,
        old_id integer,
        price integer not null default 1
    );
    insert into tenants select i, 'tenant ' || i from generate_series(1, 10) i;
    insert into parts select i, 1 + i % 10, 99, i from generate_series(1, 100) i;
    alter table parts add constraint old foreign key (old_id) references tenants not valid;
    grant select, insert, update, delete on parts to shop_svc;
    grant select, insert, update, delete on tenants to other_svc;
    grant select on tenants, parts to reporter;

    create view reports.by_tenant with (security_barrier) as
        select t.id, t.name, sum(p.price) as total from tenants t join parts p on p.tenant_id = t.id group by t.id, t.name;
    comment on view reports.by_tenant is E'Totals\r\nby tenant';
    comment on column reports.by_tenant.total is 'In cents';
    alter view reports.by_tenant alter column total set default 7;
    grant select (id, total) on reports.by_tenant to other_svc;
    grant select, update on reports.by_tenant to shop_svc with grant option;
    create function reports.refuse() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger "Refuses" instead of update on reports.by_tenant for each row execute function reports.refuse();
    comment on trigger "Refuses" on reports.by_tenant is 'No update';
    alter view reports.by_tenant owner to reporter;
    create view reports.top as select name, total from reports.by_tenant order by total desc limit 3;
    create view reports.plain as select id from parts;
    create materialized view reports.kept as select tenant_id, count(*) as parts from parts group by tenant_id;
    create unique index kept_key on reports.kept (tenant_id);
    comment on materialized view reports.kept is 'Once a day';
    create materialized view reports.empty as select id from parts with no data;

    create function reports.total(integer) returns numeric language sql stable
        begin atomic select total from reports.by_tenant where id = $1; end;
    create function tidy(wanted integer default 3, out removed integer) language plpgsql security definer
        set search_path = public as $$
        begin
            -- Both owners' tables: 'it''s' $1
            delete from parts where tenant_id = wanted;
            update tenants set parts = 0 where id = wanted;
            removed := 1;
        end $$;
    comment on function tidy is 'Removes a tenant''s parts';
    revoke execute on function tidy from public;
    grant execute on function tidy to other_svc;
    alter function tidy owner to reporter;
    create procedure count_parts() language plpgsql as $$
        begin update tenants t set parts = (select count(*) from parts p where p.tenant_id = t.id); end $$;
    create function counted() returns trigger language plpgsql as $$
        begin
            update tenants set parts = (select count(*) from parts p where p.tenant_id = new.tenant_id)
            where id = new.tenant_id;
            return new;
        end $$;
    create trigger "Counts parts" after insert on parts for each row when (new.price > 0) execute function counted();
    create function emptied() returns trigger language plpgsql as $$
        begin delete from parts where tenant_id = old.id; return old; end $$;
    create trigger emptied after delete on tenants for each row execute function emptied();
    alter table tenants enable always trigger emptied;

    -- What operators create from now on, this role may read: what comes back must not gain it.
    alter default privileges grant select on tables to reporter;
    alter default privileges grant execute on functions to shop_svc;
"#;

/// Comments on what is left out of the copy.
const COMMENTS: &str = r#"
    comment on constraint "Belongs to" on parts is 'It''s a tenant''s';
    comment on trigger "Counts parts" on parts is 'Counts'"#;

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["parts"]
    target = "$TARGET_URL"
    [owners.other]
    role = "other_svc"
    tables = ["tenants"]
"#;

/// Everything that a crossing has, one line for each.
const EVERYTHING: &str = r#"
    select format('constraint %s %s %s', conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'))
    from pg_constraint
    where contype = 'f'
    union all
    select format('%s %s owner %s acl %s %s %s %s %s', c.relkind, c.oid::regclass, c.relowner::regrole,
        coalesce(c.relacl, acldefault('r', c.relowner)), c.reloptions, c.relispopulated, obj_description(c.oid, 'pg_class'),
        pg_get_viewdef(c.oid))
    from pg_class c
    where c.relnamespace = 'reports'::regnamespace
      and c.relkind in ('v', 'm')
    union all
    select format('column %s.%s acl %s default %s %s', c.oid::regclass, a.attname, a.attacl,
        pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relnamespace = 'reports'::regnamespace
      and c.relkind in ('v', 'm')
    union all
    select indexdef from pg_indexes where schemaname = 'reports'
    union all
    select format('trigger %s %s %s', tgenabled, pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger'))
    from pg_trigger
    where not tgisinternal
      and tgname not like 'splitctl%'
    union all
    select format('routine owner %s acl %s %s %s', proowner::regrole, coalesce(proacl, acldefault('f', proowner)),
        obj_description(oid, 'pg_proc'), pg_get_functiondef(oid))
    from pg_proc
    where pronamespace in ('public'::regnamespace, 'reports'::regnamespace)
    order by 1"#;

#[test]
fn whatever_crosses_is_dropped_and_comes_back_to_the_letter() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    execute(&fixture.target, "do $$ begin if to_regrole('reporter') is null then create role reporter; end if; end $$");
    fixture.copied();
    execute(&fixture.source, COMMENTS);
    let before = strings(&fixture.source, EVERYTHING);
    let said = fixture.done(&["detach", OWNER]);
    for object in [
        "parts: the foreign key Belongs to",
        "parts: the foreign key old",
        "parts: the trigger Counts parts",
        "tenants: the trigger emptied",
        "reports.by_tenant: the view",
        "reports.top: the view",
        "reports.kept: the materialised view",
        "reports.total(integer): the function",
        "tidy(integer): the function",
        "counted(): the function",
        "count_parts(): the function",
    ] {
        assert!(said.contains(&format!("{object} is dropped")), "{object}: {said}");
    }
    assert!(fixture.done(&["detach", OWNER]).contains("nothing that detach can drop crosses"));
    fixture.done(&["attach", OWNER]);
    assert_eq!(strings(&fixture.source, EVERYTHING), before);
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.target, "set role shop_svc; insert into parts values (101, 4, null, 8)");
    fixture.done(&["rollback", OWNER]);
    assert_eq!(strings(&fixture.source, EVERYTHING), before);
    assert_eq!(strings(&fixture.source, "select sum(parts)::text from reports.kept"), ["101"]);
    fixture.done(&["verify", OWNER]);
    fixture.done(&["detach", OWNER]);
    fixture.done(&["abort", OWNER]);
    assert_eq!(strings(&fixture.source, EVERYTHING), before);
    fixture.assert_clean();
}

#[test]
fn every_object_that_does_not_come_back_is_named_with_its_statement() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    execute(&fixture.target, "do $$ begin if to_regrole('reporter') is null then create role reporter; end if; end $$");
    fixture.copied();
    execute(&fixture.source, COMMENTS);
    let before = strings(&fixture.source, EVERYTHING);
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
    execute(&fixture.source, "alter table tenants rename column name to title; delete from tenants where id = 5");
    let (code, said) = fixture.run(&["rollback", OWNER]);
    assert_ne!(code, Some(2), "{said}");
    for line in [
        "reports.by_tenant: the view is not there again (column t.name does not exist)",
        "CREATE VIEW reports.by_tenant",
        "grant SELECT (id) on table reports.by_tenant to other_svc",
        "reports.total(integer): the function is not there again",
        "reports.top: the view is not there again",
        "parts: the foreign key Belongs to is not valid again",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // The rest is back, and the application works where its tables live.
    assert_eq!(strings(&fixture.source, "select to_regclass('reports.kept')::text"), ["reports.kept"]);
    execute(&fixture.source, "set role shop_svc; update parts set price = 2 where id = 1");
    execute(&fixture.source, "alter table tenants rename column title to name; insert into tenants values (5, 'tenant 5')");
    fixture.done(&["attach", OWNER]);
    assert_eq!(strings(&fixture.source, EVERYTHING), before);
    fixture.done(&["abort", OWNER]);
}

#[test]
fn detach_drops_nothing_that_it_would_have_to_wait_for_and_names_what_hangs_on_a_crossing() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    execute(&fixture.target, "do $$ begin if to_regrole('reporter') is null then create role reporter; end if; end $$");
    // An operator calls a function that crosses.
    execute(
        &fixture.source,
        "create function known(integer) returns bigint language sql as 'select count(*) from parts, tenants';
         create operator ### (rightarg = integer, function = known)",
    );
    fixture.refused(&["plan", OWNER], "error: crossings: operator public.###(NONE,integer): it uses function public.known");
    execute(&fixture.source, "drop operator ### (none, integer)");
    fixture.copied();
    execute(&fixture.source, "create operator ### (rightarg = integer, function = known)");
    fixture.refused(&["detach", OWNER], "known(integer): the function cannot be dropped, because these depend on it");
    fixture.done(&["attach", OWNER]);
    execute(&fixture.source, "drop operator ### (none, integer)");
    // A reader of one table keeps the lock away. Readers of both go on meanwhile.
    let mut reader = std::process::Command::new("psql");
    reader.arg(&fixture.source).args(["-q", "-c", "begin; select from tenants limit 1; select pg_sleep(90)"]);
    let mut reader =
        reader.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("psql runs");
    let reads = "select 'reads' from pg_locks where relation = 'tenants'::regclass and pid <> pg_backend_pid()";
    until("the reader reads", || !strings(&fixture.source, reads).is_empty());
    let detach = ["detach", OWNER, "--lock-timeout", "200ms", "--lock-attempts", "3"];
    let mut detach = fixture.command(&detach).stderr(std::process::Stdio::piped()).spawn().expect("it runs");
    let mut longest = std::time::Duration::ZERO;
    let status = loop {
        let begun = std::time::Instant::now();
        try_execute(&fixture.source, "select from parts limit 1; select from tenants limit 1").expect("readers read");
        longest = longest.max(begun.elapsed());
        if let Some(status) = detach.try_wait().expect("asked") {
            break status;
        }
    };
    let ended = "select pg_terminate_backend(pid)::text from pg_stat_activity
        where query like '%pg_sleep(90)%' and pid <> pg_backend_pid()";
    assert_eq!(strings(&fixture.source, ended), ["true"]);
    reader.wait().expect("ended");
    assert_eq!(status.code(), Some(1));
    let (_, said) = said(&detach.wait_with_output().expect("ended"));
    assert!(said.contains("could not be locked") && said.contains("AccessShareLock on public.tenants"), "{said}");
    assert!(longest.as_millis() < 1500, "a reader waited {longest:?}");
    fixture.done(&["detach", OWNER]);
    fixture.done(&["cutover", OWNER]);
}
