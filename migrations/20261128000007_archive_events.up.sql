-- Retention of users' events: up to a mark, the log keeps only the newest event of each user, which carries the whole
-- state. The role may call these two functions and may still not delete an event by itself.
create function user_events_older(after text, older_than timestamptz, most integer)
    returns table (user_id uuid, version bigint, epoch bigint, xid xid8, "position" bigint, follows boolean)
    -- plpgsql plans with the values of `after` and `most`; sql would plan for any.
    language plpgsql stable
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
begin
    return query
        select
            e.user_id, e.version, e.epoch, e.xid, e.position,
            exists (
                select
                from public.user_events earlier
                where earlier.user_id = e.user_id
                  and earlier.version < e.version
            )
        from (
            select
                shown.user_id, shown.version, shown.epoch, shown.xid, shown.position,
                -- The mark does not pass an event that is too young, or that a broker has not confirmed.
                bool_and(
                    shown.occurred_at < older_than
                    and (
                        sent.epoch is null
                        or (shown.epoch, shown.xid, shown.position) <= (sent.epoch, sent.xid, sent.position)
                    )
                ) over (order by shown.epoch, shown.xid, shown.position) as may_go
            from (
                select user_id, version, occurred_at, epoch, xid, position
                from public.user_events
                where (epoch, xid, position) > (
                        split_part(after, '/', 1)::bigint,
                        split_part(after, '/', 2)::xid8,
                        split_part(after, '/', 3)::bigint
                    )
                  and (epoch < public.user_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
                order by epoch, xid, position
                limit most
            ) shown
            left join (
                select
                    split_part(cursor, '/', 1)::bigint as epoch,
                    split_part(cursor, '/', 2)::xid8 as xid,
                    split_part(cursor, '/', 3)::bigint as position
                from public.users_cursors
                where log like 'own log, to %'
                order by epoch, xid, position
                limit 1
            ) sent on true
        ) e
        where e.may_go
        order by e.epoch, e.xid, e.position;
end
$$;
comment on function user_events_older(text, timestamptz, integer) is
    'The next events behind a position that the archive may pass; `follows`: the log has an earlier event of the same user.';

create function archive_user_events(older_than timestamptz, most integer)
    returns table (user_id uuid, version bigint, type text, data jsonb, occurred_at timestamptz)
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
        returning e.user_id, e.version, e.type, e.data, e.occurred_at;
end
$$;
comment on function archive_user_events(timestamptz, integer) is
    'Moves the mark past at most `most` events, and deletes and returns what that makes obsolete.';

revoke execute on function
    user_events_older(text, timestamptz, integer), archive_user_events(timestamptz, integer) from public;
grant execute on function
    user_events_older(text, timestamptz, integer), archive_user_events(timestamptz, integer) to users_svc;

comment on table users_cursors is 'How far users has read orders'' feed, and sent and archived its own log. Owner: users.';

-- Retention of orders' events: up to a mark, the log keeps only the newest event of each order, which carries the whole
-- state. The role may call these two functions and may still not delete an event by itself.
create function order_events_older(after text, older_than timestamptz, most integer)
    returns table (order_id uuid, version bigint, epoch bigint, xid xid8, "position" bigint, follows boolean)
    -- plpgsql plans with the values of `after` and `most`; sql would plan for any.
    language plpgsql stable
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
begin
    return query
        select
            e.order_id, e.version, e.epoch, e.xid, e.position,
            exists (
                select
                from public.order_events earlier
                where earlier.order_id = e.order_id
                  and earlier.version < e.version
            )
        from (
            select
                shown.order_id, shown.version, shown.epoch, shown.xid, shown.position,
                -- The mark does not pass an event that is too young, or that a broker has not confirmed.
                bool_and(
                    shown.occurred_at < older_than
                    and (
                        sent.epoch is null
                        or (shown.epoch, shown.xid, shown.position) <= (sent.epoch, sent.xid, sent.position)
                    )
                ) over (order by shown.epoch, shown.xid, shown.position) as may_go
            from (
                select order_id, version, occurred_at, epoch, xid, position
                from public.order_events
                where (epoch, xid, position) > (
                        split_part(after, '/', 1)::bigint,
                        split_part(after, '/', 2)::xid8,
                        split_part(after, '/', 3)::bigint
                    )
                  and (epoch < public.order_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
                order by epoch, xid, position
                limit most
            ) shown
            left join (
                select
                    split_part(cursor, '/', 1)::bigint as epoch,
                    split_part(cursor, '/', 2)::xid8 as xid,
                    split_part(cursor, '/', 3)::bigint as position
                from public.orders_cursors
                where log like 'own log, to %'
                order by epoch, xid, position
                limit 1
            ) sent on true
        ) e
        where e.may_go
        order by e.epoch, e.xid, e.position;
end
$$;
comment on function order_events_older(text, timestamptz, integer) is
    'The next events behind a position that the archive may pass; `follows`: the log has an earlier event of the same order.';

create function archive_order_events(older_than timestamptz, most integer)
    returns table (order_id uuid, version bigint, type text, data jsonb, occurred_at timestamptz)
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
        returning e.order_id, e.version, e.type, e.data, e.occurred_at;
end
$$;
comment on function archive_order_events(timestamptz, integer) is
    'Moves the mark past at most `most` events, and deletes and returns what that makes obsolete.';

revoke execute on function
    order_events_older(text, timestamptz, integer), archive_order_events(timestamptz, integer) from public;
grant execute on function
    order_events_older(text, timestamptz, integer), archive_order_events(timestamptz, integer) to orders_svc;

comment on table orders_cursors is 'How far orders has read users'' feed, and sent and archived its own log. Owner: orders.';
