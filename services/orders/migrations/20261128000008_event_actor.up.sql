-- Who caused an event, and in which trace. Both may be null, so an older program still writes events.
alter table order_events
    add column actor text,
    add column traceparent text;
comment on column order_events.actor is 'Subject of the token of who caused it; null without a token, and for what the service does by itself.';
comment on column order_events.traceparent is 'W3C trace context of the request that caused it, if it is known.';

drop function archive_order_events(timestamptz, integer);
create function archive_order_events(older_than timestamptz, most integer)
    returns table (order_id uuid, version bigint, type text, data jsonb, occurred_at timestamptz, actor text)
    language plpgsql volatile security definer
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    mark text;
begin
    insert into public.orders_cursors (log, cursor)
    values ('own log, archived', '0/0/0')
    on conflict (log) do nothing;
    -- Of two archives at once, one waits here for the other.
    select c.cursor into mark
    from public.orders_cursors c
    where c.log = 'own log, archived'
    for update;
    return query
        with older as materialized (
            select o.order_id, o.version, o.epoch, o.xid, o.position
            from public.order_events_older(mark, older_than, most) o
        ),
        marked as (
            update public.orders_cursors c
            set cursor = format('%s/%s/%s', last.epoch, last.xid, last.position), stored_at = clock_timestamp()
            from (
                select o.epoch, o.xid, o.position
                from older o
                order by o.epoch desc, o.xid desc, o.position desc
                limit 1
            ) last
            where c.log = 'own log, archived'
        )
        delete from public.order_events e
        using (
            select o.order_id, max(o.version) as version
            from older o
            group by o.order_id
        ) kept
        where e.order_id = kept.order_id
          and e.version < kept.version
        returning e.order_id, e.version, e.type, e.data, e.occurred_at, e.actor;
end
$$;
comment on function archive_order_events(timestamptz, integer) is
    'Moves the mark past at most `most` events, and deletes and returns what that makes obsolete.';
revoke execute on function archive_order_events(timestamptz, integer) from public;
grant execute on function archive_order_events(timestamptz, integer) to orders_svc;
