-- The body of the event trigger's function: it refuses what changes the definitions, and lets every other command pass.

#variable_conflict use_column
declare
    known constant text[] := {known};
    moving oid[];
    found_now text[];
    difference text;
begin
    if coalesce(current_setting('splitctl.at_work', true), '') = 'yes' then
        return;
    end if;
    -- Temporary tables are many, and none of them moves.
    if (select bool_and(c.schema_name = 'pg_temp') from pg_event_trigger_ddl_commands() c) then
        return;
    end if;
    moving := array({oids});
    found_now := array({definitions});
    select d.entry
    into difference
    from (
        select 1 as rank, '- ' || k.entry as entry
        from unnest(known) k (entry)
        where k.entry <> all (found_now)
          and not starts_with(k.entry, 'fault: ')
        union all
        select 2, '+ ' || f.entry from unnest(found_now) f (entry) where f.entry <> all (known)
    ) d
    order by d.rank, d.entry
    limit 1;
    if difference is not null then
        raise exception '% changes a table that is moving to another database: %', tg_tag, difference
            using errcode = 'object_not_in_prerequisite_state', hint = 'run it by splitctl migrate, or wait for splitctl complete';
    end if;
end
