with open as (
    select open_count
    from open_orders
    where user_id = $1
),
changed as (
    update users
    set status = $2, updated_at = $3, version = $4
    where id = $1
      and version = $4::bigint - 1
      and not exists (select 1 from open)
    returning id, version, updated_at
),
event as (
    insert into user_events (user_id, version, type, data, occurred_at, actor, traceparent)
    select id, version, $5, $6, updated_at, $7, $8
    from changed
    returning epoch, xid, position
)
select
    exists (select 1 from open) as "open!",
    e.epoch as "epoch?",
    e.xid::text::bigint as "xid?",
    e.position as "position?"
from (values (1)) one
left join event e on true
