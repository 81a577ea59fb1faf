-- Loads the rows that the jobs read: the events, written last, have displaced them in the cache.
set enable_hashjoin = off;
set enable_mergejoin = off;
set enable_seqscan = off;
select count(u.name), count(i.sku), count(o.status)
from users u
join orders o on o.user_id = u.id
join order_items i on i.order_id = o.id
