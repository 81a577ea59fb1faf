with changed as (
    update orders
    set status = $2, updated_at = $3, version = $4
    where id = $1
      and version = $4::bigint - 1
    returning id, version, updated_at
)
insert into order_events (order_id, version, type, data, occurred_at, actor, traceparent)
select id, version, $5, $6, updated_at, $7, $8
from changed
returning epoch, xid::text::bigint as "xid!", position
