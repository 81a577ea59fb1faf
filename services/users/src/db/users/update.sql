with changed as (
    update users
    set email = $2, name = $3, status = $4, updated_at = $5, version = $6
    where id = $1
      and version = $6::bigint - 1
    returning id, version, updated_at
)
insert into user_events (user_id, version, type, data, occurred_at, actor, traceparent)
select id, version, $7, $8, updated_at, $9, $10
from changed
returning epoch, xid::text::bigint as "xid!", position
