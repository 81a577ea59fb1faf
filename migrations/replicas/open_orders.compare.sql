-- What orders publishes beside what users has read of it: one row for each open order, `difference` null where both agree.
-- $1 limits the comparison to these ids; null compares all. `users replica rebuild` fills a replica that stays different.
select
    coalesce(p.id, r.order_id)::text as key,
    case
        when r.order_id is null then 'missing'
        when p.id is null then 'extra'
        when (p.version, p.user_id) is distinct from (r.version, r.user_id) then 'different'
    end as difference,
    p.version as published_version,
    r.version as replica_version
from (
    select id, user_id, version
    from orders
    where status in ('placed', 'paid', 'shipped')
      and ($1::text[] is null or id = any ($1::text[]::uuid[]))
) p
full join (
    select order_id, user_id, version
    from open_orders_replica
    where is_open
      and ($1::text[] is null or order_id = any ($1::text[]::uuid[]))
) r on r.order_id = p.id
