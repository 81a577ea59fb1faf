drop function archive_user_events(timestamptz, integer);
create function archive_user_events(older_than timestamptz, most integer)
    returns table (user_id uuid, version bigint, type text, data jsonb, occurred_at timestamptz, actor text)
    language plpgsql volatile security definer
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    mark text;
begin
    insert into public.users_cursors (log, cursor)
    values ('own log, archived', '0/0/0')
    on conflict (log) do nothing;
    -- Of two archives at once, one waits here for the other.
    select c.cursor into mark
    from public.users_cursors c
    where c.log = 'own log, archived'
    for update;
    return query
        with older as materialized (
            select o.user_id, o.version, o.epoch, o.xid, o.position
            from public.user_events_older(mark, older_than, most) o
        ),
        marked as (
            update public.users_cursors c
            set cursor = format('%s/%s/%s', last.epoch, last.xid, last.position), stored_at = clock_timestamp()
            from (
                select o.epoch, o.xid, o.position
                from older o
                order by o.epoch desc, o.xid desc, o.position desc
                limit 1
            ) last
            where c.log = 'own log, archived'
        )
        delete from public.user_events e
        using (
            select o.user_id, max(o.version) as version
            from older o
            group by o.user_id
        ) kept
        where e.user_id = kept.user_id
          and e.version < kept.version
        returning e.user_id, e.version, e.type, e.data, e.occurred_at, e.actor;
end
$$;
comment on function archive_user_events(timestamptz, integer) is
    'Moves the mark past at most `most` events, and deletes and returns what that makes obsolete.';
revoke execute on function archive_user_events(timestamptz, integer) from public;
grant execute on function archive_user_events(timestamptz, integer) to users_svc;
