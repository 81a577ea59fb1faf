-- Copies users that changed since transaction $1, while the view is locked. Their events arrive later and change nothing.
insert into customers_replica as known (id, name, status, version)
select id, name, status, version
from users
where id in (select user_id from user_events where epoch = user_event_epoch() and xid >= $1::xid8)
on conflict (id) do update
set name = excluded.name, status = excluded.status, version = excluded.version, refreshed_at = excluded.refreshed_at
where excluded.version > known.version
