-- What must hold before the view reads the replica: one row for each condition that does not hold.
-- The lock is the one that users' consumer holds while it runs (services/users/src/open_orders/replica.rs).
select 'open_orders_replica: no consumer writes it; run users with EVENTS_VIA=feed, kafka or rabbitmq' as message
where not exists (
    select 1
    from pg_locks l
    join pg_database d on d.oid = l.database and d.datname = current_database()
    where l.locktype = 'advisory'
      and l.granted
      and l.objsubid = 1
      and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('users: consumer of orders'' events', 0)
)
union all
select format('users_parked_events: %s events are parked; read its column error, then run `users replica retry`', count(*))
from users_parked_events
having count(*) > 0
