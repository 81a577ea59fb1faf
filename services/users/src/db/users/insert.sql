with registered as (
    insert into users (id, email, name, status, created_at, updated_at, version)
    values ($1, $2, $3, $4, $5, $6, $7)
    returning id, version, updated_at
)
insert into user_events (user_id, version, type, data, occurred_at, actor, traceparent)
select id, version, $8, $9, updated_at, $10, $11
from registered
returning epoch, xid::text::bigint as "xid!", position
