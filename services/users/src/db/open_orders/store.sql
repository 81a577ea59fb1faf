insert into open_orders_replica as known (order_id, user_id, is_open, version)
select order_id, user_id, is_open, version
from unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::bigint[]) as news (order_id, user_id, is_open, version)
on conflict (order_id) do update
set user_id = excluded.user_id, is_open = excluded.is_open, version = excluded.version,
    refreshed_at = excluded.refreshed_at
where excluded.version > known.version
