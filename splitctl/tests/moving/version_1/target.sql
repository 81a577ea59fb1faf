-- The target of a move as the release before versions leaves it after copy, verify and detach: captured from that release.
-- The test replaces {source_database}, {target_system}, {target_database}, {oids} and {source_url}, and runs each part up to
-- `next` by itself.

create schema if not exists splitctl;
create table if not exists splitctl.switches (
    owner text not null,
    generation bigint not null,
    side text not null check (side in ('source', 'target')),
    at timestamptz not null default clock_timestamp(),
    way_back pg_lsn,
    constraint switches_pkey primary key (owner, generation)
);
comment on table splitctl.switches is 
    'Where an owner''s tables live from each switch on. A row is written in the transaction that closes the side it was '
    'written on; the highest generation over both databases holds.';
grant usage on schema splitctl to shop_svc; grant select on splitctl.switches to shop_svc;

create function public.log_epoch() returns bigint language sql stable parallel safe as 'select 1::bigint';
create table public.notes (
    id bigint generated always as identity primary key,
    tenant_id integer not null,
    token text not null unique,
    epoch bigint not null default public.log_epoch()
);

create schema if not exists splitctl;
create or replace function splitctl.refuse_write() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    raise exception 'table % has moved to another database', tg_relid::regclass
        using errcode = 'insufficient_privilege', hint = 'splitctl.switches tells where it lives';
end $$;
create or replace function splitctl.refuse_truncate() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    raise exception 'table % is being moved to another database and cannot be truncated meanwhile', tg_relid::regclass
        using errcode = 'object_not_in_prerequisite_state', hint = 'delete its rows, or wait for splitctl complete';
end $$;

create or replace trigger splitctl_no_truncate before truncate on public.notes
    for each statement execute function splitctl.refuse_truncate();

create table if not exists splitctl."marker_shop" (id integer primary key, token bigint not null);
comment on table splitctl."marker_shop" is
    'Set on one side and awaited on the other: what was committed before it has arrived.';
create publication "splitctl_shop_1" for table "public"."notes", splitctl."marker_shop"
    with (publish = 'insert, update, delete', publish_via_partition_root = true);

-- next
begin;
create or replace function splitctl.splitctl_definitions_shop() returns event_trigger
language plpgsql set search_path = pg_catalog as $$
declare
    command record;
begin
    if coalesce(current_setting('splitctl.at_work', true), '') = 'yes' then
        return;
    end if;
    for command in select * from pg_event_trigger_ddl_commands() loop
        if command.command_tag in ('ALTER TABLE', 'CREATE INDEX', 'CREATE TABLE', 'CREATE RULE')
           and (command.objid in ({oids})
                or exists (select from pg_index i where i.indexrelid = command.objid
                           and i.indrelid in ({oids}) and i.indisunique)
                or exists (select from pg_inherits i where i.inhrelid = command.objid and i.inhparent in ({oids}))) then
            raise exception '% is being moved to another database: its definition cannot change meanwhile',
                command.object_identity
                using errcode = 'object_not_in_prerequisite_state', hint = 'wait for splitctl complete, or splitctl abort';
        end if;
    end loop;
end $$;
drop event trigger if exists splitctl_definitions_shop;
create event trigger splitctl_definitions_shop on ddl_command_end execute function splitctl.splitctl_definitions_shop();
commit;

-- next
create subscription "splitctl_{source_database}_shop_1_1"
connection '{source_url}?application_name=splitctl_{source_database}_shop_1_1'
publication "splitctl_shop_1"
with (create_slot = false, slot_name = "splitctl_{source_database}_shop_1_1", enabled = true, copy_data = true);
