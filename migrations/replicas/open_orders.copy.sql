-- Copies orders that changed since transaction $1, while the view is locked. Their events arrive later and change nothing.
insert into open_orders_replica as known (order_id, user_id, is_open, version)
select id, user_id, status in ('placed', 'paid', 'shipped'), version
from orders
where id in (select order_id from order_events where epoch = order_event_epoch() and xid >= $1::xid8)
on conflict (order_id) do update
set user_id = excluded.user_id, is_open = excluded.is_open, version = excluded.version, refreshed_at = excluded.refreshed_at
where excluded.version > known.version
