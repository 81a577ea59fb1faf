-- The functions of the triggers that keep writes off tables.

create schema if not exists splitctl;
create or replace function splitctl.refuse_write()
returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    -- The argument is the oid of the marker. A right is not part of a snapshot, so a transaction that began before the switch
    -- sees it too. Without an argument the trigger is one of version 1, which was there only while the side was closed.
    if tg_nargs = 1 and coalesce(has_table_privilege('public', tg_argv[0]::oid, 'select'), true) then
        return null;
    end if;
    raise exception 'table %: it has moved to another database', tg_relid::regclass
        using errcode = 'insufficient_privilege', hint = 'splitctl.switches says where it lives';
end $$;
create or replace function splitctl.refuse_truncate()
returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    raise exception 'table %: it is moving to another database and cannot be truncated meanwhile', tg_relid::regclass
        using errcode = 'object_not_in_prerequisite_state', hint = 'delete its rows, or wait for splitctl complete';
end $$;
