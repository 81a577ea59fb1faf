select
    e.version, e.type, e.data as "data: Box<RawValue>", e.occurred_at, e.actor, e.traceparent,
    exists (
        select 1
        from orders_cursors
        where log = 'own log, archived'
          and (e.epoch, e.xid, e.position) <= (
                split_part(cursor, '/', 1)::bigint,
                split_part(cursor, '/', 2)::xid8,
                split_part(cursor, '/', 3)::bigint
            )
    ) as "is_archived!",
    o.user_id, c.name as "name?", c.status as "status?", c.version as "customer_version?"
from order_events e
join orders o on o.id = e.order_id
left join customers c on c.id = o.user_id and $3::boolean
where e.order_id = $1
  and e.occurred_at <= $2
order by e.version
