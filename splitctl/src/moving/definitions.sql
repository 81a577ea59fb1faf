-- The event trigger {name}, for the tables and partitions with the oids {oids}.

begin;
create or replace function splitctl.{name}()
returns event_trigger
language plpgsql
set search_path = pg_catalog
as $$
declare
    command record;
begin
    if coalesce(current_setting('splitctl.at_work', true), '') = 'yes' then
        return;
    end if;
    for command in
        select c.objid, c.object_identity
        from pg_event_trigger_ddl_commands() c
        where c.command_tag in ('ALTER TABLE', 'CREATE INDEX', 'CREATE TABLE', 'CREATE RULE')
    loop
        if command.objid in ({oids})
            or exists (
                select from pg_index i
                where i.indexrelid = command.objid and i.indrelid in ({oids}) and i.indisunique
            )
            or exists (
                select from pg_inherits i
                where i.inhrelid = command.objid and i.inhparent in ({oids})
            )
        then
            raise exception '%: it is moving to another database, so its definition cannot change', command.object_identity
                using errcode = 'object_not_in_prerequisite_state', hint = 'wait for splitctl complete, or splitctl abort';
        end if;
    end loop;
end $$;
drop event trigger if exists {name};
create event trigger {name} on ddl_command_end execute function splitctl.{name}();
commit;
