-- What must hold before the view reads the replica: one row for each condition that does not hold.
-- The lock is the one that orders' consumer holds while it runs (services/orders/src/customers/replica.rs).
select 'customers_replica: no consumer writes it; run orders with EVENTS_VIA=feed, kafka or rabbitmq' as message
where not exists (
    select 1
    from pg_locks l
    join pg_database d on d.oid = l.database and d.datname = current_database()
    where l.locktype = 'advisory'
      and l.granted
      and l.objsubid = 1
      and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('orders: consumer of users'' events', 0)
)
union all
select format('orders_parked_events: %s events are parked; read its column error, then run `orders replica retry`', count(*))
from orders_parked_events
having count(*) > 0
